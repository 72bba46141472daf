/**
 * Asynchronous executions: accepted durably, run in the background, finished exactly once in effect.
 *
 * I1. `accept` resolves after the disk has the request.
 * I2. A result is visible only after the disk has it, so that no crash can replace a result somebody saw.
 * I3. Every write names the incarnation it saw; a stale writer changes nothing.
 * I4. At least once: after a crash a rerunnable request runs again, another one only when its command had not started.
 * I5. Principals take turns.
 */
import {
  FaasError, type ExecutionRecord, type ExecutionResult, type IdempotencyEntry, type Ledger, type LogSink, type PrincipalId, type UsageTotal,
} from '@faas-platform/core'
import { draining, type Admission } from './admission.js'
import type { ExecutorConfig } from './config.js'
import type { Engine } from './engine.js'
import type { LiveExecution } from './live-execution.js'

export interface BackgroundParts {
  readonly config: ExecutorConfig
  readonly engine: Engine
  readonly admission: Admission
  readonly ledger: Ledger
  readonly log: LogSink
  readonly usageOf: (result: ExecutionResult, live: LiveExecution) => UsageTotal
  /** It ended: forget it after its end was told. */
  readonly onEnded: (live: LiveExecution) => void
}

export class Background {
  /** Per principal, in order of arrival; the map's order is the order of turns. */
  readonly #waiting = new Map<PrincipalId, LiveExecution[]>()
  readonly #running = new Set<LiveExecution>()
  readonly #storedIncarnation = new Map<LiveExecution, number>()
  #queued = 0
  #accepted = 0
  #bytes = 0
  #closed = false
  #idle: (() => void)[] = []
  #returned = 0

  constructor(private readonly parts: BackgroundParts) {}

  /** Left in the ledger for the next process: what was given back, and what still waits once nothing is taken up any more. */
  get handedBack(): number {
    return this.#returned + (this.#closed ? this.#queued : 0)
  }

  get queued(): number {
    return this.#queued
  }

  get running(): number {
    return this.#running.size
  }

  /** @throws FaasError `admission/queue-full`, `admission/draining`, `store/unavailable` */
  async accept(live: LiveExecution, idempotency: IdempotencyEntry | null): Promise<void> {
    const { config, ledger, admission } = this.parts
    if (this.#closed) throw draining()
    if (this.#accepted >= config.asyncQueueMax || this.#bytes + bytesOf(live) > config.asyncQueueBytesMax) {
      throw new FaasError('admission/queue-full', { message: `The queue of asynchronous executions is full (${this.#accepted}).`, hint: 'Retry later.', details: { retryAfterMs: Math.max(1_000, admission.retryAfterMs()) } })
    }
    this.#count(live, 1)
    try {
      await ledger.insertExecution(live.record(), { durable: true, ...(idempotency === null ? {} : { idempotency }) }) // I1
    } catch (error) {
      this.#count(live, -1)
      throw error
    }
    this.#storedIncarnation.set(live, live.incarnation)
    this.#enqueue(live)
  }

  /** Takes over one of the last process's executions; the ledger knows it in `storedIncarnation`. */
  async readmit(live: LiveExecution, storedIncarnation: number): Promise<void> {
    this.#count(live, 1)
    this.#storedIncarnation.set(live, storedIncarnation)
    await this.#store(live, live.record(), { durable: false })
    this.#enqueue(live)
  }

  /** Ends an execution of the last process without running it. */
  async conclude(live: LiveExecution, storedIncarnation: number, result: ExecutionResult): Promise<void> {
    this.#storedIncarnation.set(live, storedIncarnation)
    await this.#finish(live, result)
  }

  /** Takes no more; what waits stays in the ledger for the next process. */
  close(): void {
    this.#closed = true
  }

  /** Resolves when nothing runs. */
  idle(): Promise<void> {
    if (this.#running.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  /** A queued one ends at once; a running one is told to. True when it was queued. */
  async cancelQueued(live: LiveExecution, result: ExecutionResult): Promise<boolean> {
    const line = this.#waiting.get(live.principal)
    const index = line?.indexOf(live) ?? -1
    if (line === undefined || index === -1) return false
    line.splice(index, 1)
    if (line.length === 0) this.#waiting.delete(live.principal)
    this.#queued--
    this.#count(live, -1)
    await live.log.close({ keepOnDisk: false })
    live.outline = live.log.outline()
    await this.#finish(live, result)
    return true
  }

  #enqueue(live: LiveExecution): void {
    const line = this.#waiting.get(live.principal)
    if (line === undefined) this.#waiting.set(live.principal, [live])
    else line.push(live)
    this.#queued++
    this.#pump()
  }

  #pump(): void {
    while (!this.#closed && this.#running.size < this.parts.config.asyncConcurrencyMax) {
      const live = this.#next()
      if (live === undefined) return
      this.#running.add(live)
      void this.#run(live)
    }
  }

  /** I5. */
  #next(): LiveExecution | undefined {
    for (const [principal, line] of this.#waiting) {
      const live = line.shift()
      this.#waiting.delete(principal)
      if (line.length > 0) this.#waiting.set(principal, line)
      if (live === undefined) continue
      this.#queued--
      return live
    }
    return undefined
  }

  async #run(live: LiveExecution): Promise<void> {
    const { engine, admission, log } = this.parts
    try {
      live.attempt++
      live.scope.arm(live.request.timeoutMs)
      const result = await engine.perform(live, {
        ticket: Promise.resolve().then(() => admission.enter(live.principal, { signal: live.scope.signal, background: true })),
        beforeStart: () => this.#beforeStart(live),
      })
      if (this.#mayGoBack(live)) await this.#handBack(live)
      else await this.#finish(live, result)
    } catch (error) {
      // The ledger could not take the end: the execution stays unfinished there and runs again, or is reported, at the next start.
      log.error({ execution: live.id, err: error }, 'the end of an asynchronous execution could not be stored')
      this.parts.onEnded(live)
    } finally {
      this.#running.delete(live)
      this.#count(live, -1)
      this.#storedIncarnation.delete(live)
      this.#pump()
      if (this.#running.size === 0) for (const resolve of this.#idle.splice(0)) resolve()
    }
  }

  /** Ended by a shutdown, and either allowed to run again or never begun. */
  #mayGoBack(live: LiveExecution): boolean {
    const byShutdown = live.scope.cause === 'shutdown' || live.failure?.code === 'admission/draining'
    return byShutdown && (live.request.rerunnable || live.startedAtMs === null)
  }

  /** I4: a command that must not run twice is only started after the disk knows that it was. */
  async #beforeStart(live: LiveExecution): Promise<void> {
    const once = !live.request.rerunnable
    if (once) live.become('running')
    await this.#store(live, live.record(), { durable: once })
  }

  async #finish(live: LiveExecution, result: ExecutionResult): Promise<void> {
    await this.#store(live, live.finalRecord(result), { durable: true, usage: this.parts.usageOf(result, live) }) // I2
    await live.end(result)
    this.parts.onEnded(live)
  }

  async #handBack(live: LiveExecution): Promise<void> {
    if (live.state !== 'queued') live.become('queued')
    await this.#store(live, live.record(), { durable: true })
    this.#returned++
    this.parts.onEnded(live)
  }

  async #store(live: LiveExecution, record: ExecutionRecord, options: { readonly durable: boolean; readonly usage?: UsageTotal }): Promise<void> {
    const known = this.#storedIncarnation.get(live) ?? live.incarnation
    const stored = await this.parts.ledger.updateExecution(record, known, options) // I3
    if (!stored) throw new FaasError('internal/bug', { message: 'The ledger knows another life of this execution.', details: { id: live.id, incarnation: known } })
    this.#storedIncarnation.set(live, record.incarnation)
  }

  #count(live: LiveExecution, by: 1 | -1): void {
    this.#accepted += by
    this.#bytes += by * bytesOf(live)
  }
}

function bytesOf({ request }: LiveExecution): number {
  return 1024 + (request.stdin?.length ?? 0) + request.argv.reduce((sum, word) => sum + word.length, 0)
}
