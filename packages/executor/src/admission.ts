/**
 * Who may run now. Bounded, and fair between principals.
 *
 * I1. Never more than `concurrencyMax` tickets are out, nor more than `principalConcurrencyMax` of one principal.
 * I2. At most `queueMax` synchronous requests wait.
 * I3. Principals that wait are served in turn, each in order of arrival: one caller's burst delays others by one ticket.
 */
import { FaasError, type Clock, type PrincipalId } from '@faas-platform/core'

export interface AdmissionLimits {
  readonly concurrencyMax: number
  readonly queueMax: number
  readonly principalConcurrencyMax: number
  readonly principalOutstandingMax: number
}

export interface Ticket {
  /** Idempotent. */
  release(): void
}

export interface EnterOptions {
  readonly signal: AbortSignal
  /** Background work waits outside of the bounds, because its own queue is bounded already. */
  readonly background: boolean
}

interface Waiter {
  readonly grant: (ticket: Ticket) => void
  readonly background: boolean
}

interface PrincipalLine {
  readonly id: PrincipalId
  running: number
  readonly waiting: Set<Waiter>
  /** Is it in `#turns`? */
  inTurn: boolean
}

const SERVICE_WEIGHT = 0.1

export class Admission {
  readonly #lines = new Map<PrincipalId, PrincipalLine>()
  /** Principals that wait and may run, in the order of their turns. */
  readonly #turns = new Set<PrincipalLine>()
  #running = 0
  #queued = 0
  #backgroundQueued = 0
  /** Mean time a ticket is out, ms. */
  #serviceMs = 50
  #closed = false

  readonly #limits: AdmissionLimits

  constructor(limits: AdmissionLimits, private readonly clock: Clock) {
    // Who may have fewer outstanding than running may run no more than that.
    this.#limits = { ...limits, principalConcurrencyMax: Math.min(limits.principalConcurrencyMax, limits.principalOutstandingMax) }
  }

  get running(): number {
    return this.#running
  }

  get queued(): number {
    return this.#queued + this.#backgroundQueued
  }

  /** No more tickets; those out stay valid. */
  close(): void {
    this.#closed = true
  }

  /**
   * A ticket at once, or a promise of one.
   * @throws FaasError `admission/queue-full`, `admission/principal-limit`, `admission/draining`; the signal's reason when aborted
   */
  enter(principal: PrincipalId, options: EnterOptions): Ticket | Promise<Ticket> {
    if (this.#closed) throw draining()
    const line = this.#lineOf(principal)
    if (this.#running < this.#limits.concurrencyMax && line.running < this.#limits.principalConcurrencyMax && line.waiting.size === 0) {
      return this.#issue(line)
    }
    if (!options.background) this.#checkBounds(line)
    return this.#wait(line, options)
  }

  /** How long until a place in the queue is likely, ms. */
  retryAfterMs(): number {
    const rounds = (this.#queued + 1) / this.#limits.concurrencyMax
    return Math.min(60_000, Math.max(100, Math.ceil(rounds * this.#serviceMs)))
  }

  #checkBounds(line: PrincipalLine): void {
    if (line.running + line.waiting.size >= this.#limits.principalOutstandingMax) {
      this.#forget(line)
      throw new FaasError('admission/principal-limit', {
        message: `This caller has ${this.#limits.principalOutstandingMax} executions running or queued, which is its limit.`,
        hint: 'Wait for some to end, or submit asynchronously.',
        details: { retryAfterMs: this.retryAfterMs(), limit: this.#limits.principalOutstandingMax },
      })
    }
    if (this.#queued >= this.#limits.queueMax) { // I2
      this.#forget(line)
      throw new FaasError('admission/queue-full', {
        message: `The queue is full: ${this.#running} executions run and ${this.#queued} wait.`,
        hint: 'Retry after the given time, or submit asynchronously.',
        details: { retryAfterMs: this.retryAfterMs(), queueMax: this.#limits.queueMax },
      })
    }
  }

  #wait(line: PrincipalLine, { signal, background }: EnterOptions): Promise<Ticket> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        this.#forget(line)
        reject(signal.reason as Error)
        return
      }
      const leave = (): void => {
        line.waiting.delete(waiter)
        if (background) this.#backgroundQueued--
        else this.#queued--
      }
      const onAbort = (): void => {
        leave()
        if (line.waiting.size === 0) this.#turns.delete(line)
        line.inTurn = this.#turns.has(line)
        this.#forget(line)
        reject(signal.reason as Error)
      }
      const waiter: Waiter = {
        background,
        grant: (ticket) => {
          leave()
          signal.removeEventListener('abort', onAbort)
          resolve(ticket)
        },
      }
      signal.addEventListener('abort', onAbort, { once: true })
      line.waiting.add(waiter)
      if (background) this.#backgroundQueued++
      else this.#queued++
      this.#offerTurn(line)
    })
  }

  #issue(line: PrincipalLine): Ticket {
    this.#running++
    line.running++
    const sinceMs = this.clock.monotonicMs()
    let out = true
    return {
      release: () => {
        if (!out) return
        out = false
        this.#running--
        line.running--
        this.#serviceMs += (this.clock.monotonicMs() - sinceMs - this.#serviceMs) * SERVICE_WEIGHT
        this.#offerTurn(line)
        this.#forget(line)
        this.#dispatch()
      },
    }
  }

  #offerTurn(line: PrincipalLine): void {
    if (line.inTurn || line.waiting.size === 0 || line.running >= this.#limits.principalConcurrencyMax) return
    line.inTurn = true
    this.#turns.add(line)
  }

  #dispatch(): void {
    while (this.#running < this.#limits.concurrencyMax) { // I1
      const line = first(this.#turns)
      if (line === undefined) return
      // I3: to the back of the turns, unless it is done or at its limit.
      this.#turns.delete(line)
      line.inTurn = false
      const waiter = first(line.waiting)
      if (waiter === undefined) continue
      const ticket = this.#issue(line)
      waiter.grant(ticket)
      this.#offerTurn(line)
    }
  }

  #lineOf(id: PrincipalId): PrincipalLine {
    let line = this.#lines.get(id)
    if (line === undefined) {
      line = { id, running: 0, waiting: new Set(), inTurn: false }
      this.#lines.set(id, line)
    }
    return line
  }

  /** Keeps the table as small as the number of principals that are here now. */
  #forget(line: PrincipalLine): void {
    if (line.running === 0 && line.waiting.size === 0) this.#lines.delete(line.id)
  }
}

export function draining(): FaasError {
  return new FaasError('admission/draining', { message: 'The gateway is shutting down and takes no new work.', hint: 'Retry in a few seconds.', details: { retryAfterMs: 2_000 } })
}

function first<T>(set: ReadonlySet<T>): T | undefined {
  for (const item of set) return item
  return undefined
}
