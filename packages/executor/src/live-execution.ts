/**
 * One accepted execution while it is in the process: its state, its log, its callers and its end.
 *
 * I1. The state only changes through core's table.
 * I2. `end` settles once; the end event comes after every other event.
 * I3. A caller that goes away cancels the execution only when it was the last one.
 */
import {
  EXECUTION_STATES, FaasError, isFinal, transition, type Clock, type ExecutionEvent, type ExecutionId, type ExecutionKind, type ExecutionRecord,
  type ExecutionResult, type ExecutionState, type ExecutionSummary, type ExecuteRequest, type EventOutline, type InstanceId, type Lifecycle,
  type LogSink, type PrincipalId,
} from '@faas-platform/core'
import { ExecutionLog } from './execution-log.js'
import { StopScope } from './stop-scope.js'

type Listener = (event: ExecutionEvent) => void | Promise<void>

export interface LiveExecutionInit {
  readonly id: ExecutionId
  readonly kind: ExecutionKind
  readonly principal: PrincipalId
  readonly request: ExecuteRequest
  readonly idempotencyKey: string | null
  readonly requestHash: string | null
  readonly createdAtMs: number
  readonly log: ExecutionLog
  readonly scope: StopScope
  /** Continues the life of a stored one. */
  readonly life?: Lifecycle<ExecutionState>
  readonly attempt?: number
  /** Told every event from the first. */
  readonly onEvent?: Listener | undefined
}

export class LiveExecution {
  readonly id: ExecutionId
  readonly kind: ExecutionKind
  readonly principal: PrincipalId
  readonly request: ExecuteRequest
  readonly idempotencyKey: string | null
  readonly requestHash: string | null
  readonly createdAtMs: number
  readonly log: ExecutionLog
  readonly scope: StopScope
  readonly ended: Promise<ExecutionResult>
  attempt: number
  startedAtMs: number | null = null
  endedAtMs: number | null = null
  result: ExecutionResult | null = null
  outline: EventOutline | null = null
  instanceId: InstanceId | null
  /** What `run` throws instead of answering with a result of outcome `error`. */
  failure: FaasError | null = null
  #life: Lifecycle<ExecutionState>
  #resolveEnd: (result: ExecutionResult) => void = () => undefined
  #callers = 0
  readonly #listeners = new Set<Listener>()

  constructor(init: LiveExecutionInit, private readonly clock: Clock, private readonly logSink: LogSink) {
    this.id = init.id
    this.kind = init.kind
    this.principal = init.principal
    this.request = init.request
    this.idempotencyKey = init.idempotencyKey
    this.requestHash = init.requestHash
    this.createdAtMs = init.createdAtMs
    this.log = init.log
    this.scope = init.scope
    this.attempt = init.attempt ?? 1
    this.instanceId = init.request.instanceId ?? null
    this.#life = init.life ?? { state: 'queued', incarnation: 0 }
    this.ended = new Promise((resolve) => {
      this.#resolveEnd = resolve
    })
    if (init.onEvent !== undefined) this.#listeners.add(init.onEvent)
    this.#announce(this.#life.state)
  }

  get state(): ExecutionState {
    return this.#life.state
  }

  get incarnation(): number {
    return this.#life.incarnation
  }

  become(state: ExecutionState): void {
    this.#life = transition(EXECUTION_STATES, this.#life, state) // I1
    if (!isFinal(EXECUTION_STATES, state)) this.#announce(state)
  }

  /** Hands output to the log and to those who listen. A returned promise asks the guest to wait. */
  output(type: 'stdout' | 'stderr', bytes: Uint8Array): Promise<void> | undefined {
    return this.#emit({ type, bytes })
  }

  /** What the ledger gets before the end becomes visible. */
  finalRecord(result: ExecutionResult): ExecutionRecord {
    const life = transition(EXECUTION_STATES, this.#life, result.state)
    return { ...this.record(), ...life, result, outline: this.outline, instanceId: result.instanceId ?? this.instanceId, endedAtMs: result.endedAtMs }
  }

  /** Makes the end visible. */
  async end(result: ExecutionResult): Promise<void> {
    this.become(result.state)
    this.result = result
    this.endedAtMs = result.endedAtMs
    await this.#tell({ type: 'end', result, seq: this.log.length, atMs: result.endedAtMs })
    this.#resolveEnd(result) // I2
  }

  /** Counts a caller in until `leave`; its signal cancels when no other caller is left. */
  join(signal: AbortSignal): { leave(): void } {
    this.#callers++
    let here = true
    const leave = (): void => {
      if (!here) return
      here = false
      this.#callers--
      signal.removeEventListener('abort', onAbort)
    }
    const onAbort = (): void => {
      leave()
      if (this.#callers === 0) this.scope.stop('cancelled', 'The caller went away.') // I3
    }
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    return { leave }
  }

  record(): ExecutionRecord {
    const visible = this.result !== null
    return {
      id: this.id, principal: this.principal, kind: this.kind, state: this.state, incarnation: this.incarnation, attempt: this.attempt,
      request: this.request, result: this.result, outline: visible ? this.outline : null, idempotencyKey: this.idempotencyKey,
      requestHash: this.requestHash, instanceId: this.result?.instanceId ?? this.instanceId, createdAtMs: this.createdAtMs,
      startedAtMs: this.startedAtMs, endedAtMs: this.endedAtMs,
    }
  }

  summary(): ExecutionSummary {
    return summarise(this.record())
  }

  #announce(state: ExecutionState): void {
    // Nobody waits for a change of state; a log that can not be written is reported by the next output and at the end.
    this.#emit({ type: 'state', state })?.catch(() => undefined)
  }

  #emit(entry: { readonly type: 'state'; readonly state: ExecutionState } | { readonly type: 'stdout' | 'stderr'; readonly bytes: Uint8Array }): Promise<void> | undefined {
    const atMs = this.clock.nowMs()
    const seq = this.log.length
    const stored = this.log.append(entry, atMs)
    if (this.#listeners.size === 0) return stored
    const told = this.#tell({ ...entry, seq, atMs })
    if (told === undefined) return stored
    return stored === undefined ? told : Promise.all([stored, told]).then(() => undefined)
  }

  /** A listener that fails is told nothing more; the execution goes on. */
  #tell(event: ExecutionEvent): Promise<void> | undefined {
    const pending: Promise<void>[] = []
    for (const listener of this.#listeners) {
      const failed = (error: unknown): void => {
        this.#listeners.delete(listener)
        this.logSink.warn({ execution: this.id, err: error }, 'a listener of execution events failed')
      }
      try {
        const wait = listener(event)
        if (wait !== undefined) pending.push(wait.catch(failed))
      } catch (error) {
        failed(error)
      }
    }
    return pending.length === 0 ? undefined : Promise.all(pending).then(() => undefined)
  }
}

export function summarise(record: ExecutionRecord): ExecutionSummary {
  return {
    id: record.id, principal: record.principal, kind: record.kind, state: record.state, argv: record.request.argv, image: record.request.image,
    mode: record.request.mode, runtime: record.result?.decision?.runtime ?? null, outcome: record.result?.outcome ?? null,
    exitCode: record.result?.exitCode ?? null, instanceId: record.instanceId, labels: record.request.labels,
    createdAtMs: record.createdAtMs, startedAtMs: record.startedAtMs, endedAtMs: record.endedAtMs,
  }
}
