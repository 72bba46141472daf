/**
 * The one place where an execution's deadline, its caller's cancellation and its limits meet.
 * The first cause wins and stays; `signal` aborts with it.
 */
import { FaasError, type Clock, type ErrorCode } from '@faas-platform/core'
import { OVER } from './over.js'

export type StopCause = 'deadline' | 'cancelled' | 'output_limit' | 'disk_limit' | 'shutdown'

const CODES: Readonly<Record<StopCause, ErrorCode>> = {
  deadline: 'execution/deadline',
  cancelled: 'execution/cancelled',
  output_limit: 'execution/output-limit',
  disk_limit: 'execution/disk-limit',
  shutdown: 'admission/draining',
}

export class StopScope {
  readonly #controller = new AbortController()
  readonly #timer = new AbortController()
  #cause: StopCause | null = null
  #message = ''

  constructor(private readonly clock: Clock) {}

  /** Starts the budget. Once. */
  arm(timeoutMs: number): void {
    this.clock.delay(timeoutMs, this.#timer.signal).then(
      () => this.stop('deadline', `The command did not end within ${timeoutMs} ms.`),
      () => undefined, // Disposed before the deadline: the usual end.
    )
  }

  get signal(): AbortSignal {
    return this.#controller.signal
  }

  get cause(): StopCause | null {
    return this.#cause
  }

  /** The words for the cause. */
  get message(): string {
    return this.#message
  }

  stop(cause: StopCause, message: string): void {
    if (this.#cause !== null) return
    this.#cause = cause
    this.#message = message
    this.#controller.abort(new FaasError(CODES[cause], { message }))
  }

  [Symbol.dispose](): void {
    this.#timer.abort(OVER)
  }
}
