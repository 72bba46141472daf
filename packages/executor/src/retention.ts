/**
 * Keeps the end state of finished ephemeral executions for a while, addressable by execution id.
 *
 * Cost: nothing before the reply. A sandbox that wrote nothing is ended, and its end state is its image.
 * Otherwise its driver keeps the writable layer (a rename for overlay-based runtimes), in the teardown queue,
 * and only when the driver says that it can (`features.retain`) and the layer is not too large.
 *
 * I1. At most `countMax` entries and `bytesMax` bytes; the least recently used go first.
 * I2. Every sandbox given to `settle` is retained or disposed; every retained state is dropped in the end.
 */
import { FaasError, type Clock, type ExecutionId, type LogSink, type PrincipalId, type RetainedState, type Sandbox } from '@faas-platform/core'
import type { RetentionConfig } from './config.js'
import type { Disposer } from './disposer.js'
import type { Metrics } from './metrics.js'
import type { LeaseEnd } from './modes.js'
import type { Placed } from './placement.js'
import type { AcceptedWork, RetainedExecution } from './types.js'

interface Entry extends Omit<RetainedExecution, 'state'> {
  state: RetainedState | null
  /** Pending while the driver still works on it. */
  pending: Promise<void> | null
}

const WORTH_KEEPING = new Set(['exited', 'signaled', 'deadline'])

export class Retention {
  readonly #entries = new Map<ExecutionId, Entry>()
  #bytes = 0
  #closed = false

  constructor(
    private readonly config: RetentionConfig,
    private readonly parts: { readonly clock: Clock; readonly log: LogSink; readonly disposer: Disposer; readonly metrics: Metrics },
  ) {}

  get count(): number {
    return this.#entries.size
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Keeps or ends the sandbox of a finished execution, in the background. Resolves when its processes are gone. */
  settle(work: AcceptedWork, placed: Placed, end: LeaseEnd): Promise<void> {
    const { sandbox } = placed
    const { disposer } = this.parts
    const what = `sandbox ${sandbox.id}`
    const possible = this.config.enabled && !this.#closed && !end.sandboxSpent && WORTH_KEEPING.has(end.outcome) && placed.chosen.driver.features.retain
    if (!possible) return disposer.push(what, () => sandbox[Symbol.asyncDispose]())
    const entry = this.#add(work, placed)
    const done = disposer.push(what, async () => {
      const before = placed.statsBefore?.writableBytes ?? 0
      const after = (await end.statsAfter)?.writableBytes ?? null
      if (after !== null && after <= before) await sandbox[Symbol.asyncDispose]()
      else await this.#retain(entry, sandbox, after)
    })
    entry.pending = done
    return done
  }

  /** @throws FaasError `execution/result-expired` */
  async get(id: ExecutionId, principal: PrincipalId | null): Promise<RetainedExecution> {
    const entry = this.#entries.get(id)
    await entry?.pending
    const current = this.#entries.get(id)
    if (current === undefined || current.expiresAtMs <= this.parts.clock.nowMs() || (principal !== null && current.principal !== principal)) {
      throw new FaasError('execution/result-expired', { message: 'The end state of this execution is not retained.', hint: `End states are kept for at most ${this.config.ttlMs} ms.`, details: { id } })
    }
    this.#entries.delete(id)
    this.#entries.set(id, current) // I1: used now.
    return current
  }

  sweep(): void {
    const now = this.parts.clock.nowMs()
    for (const entry of this.#entries.values()) {
      if (entry.expiresAtMs <= now) this.#drop(entry)
    }
  }

  close(): void {
    this.#closed = true
    for (const entry of this.#entries.values()) this.#drop(entry)
  }

  #add(work: AcceptedWork, placed: Placed): Entry {
    const entry: Entry = {
      executionId: work.id,
      principal: work.principal,
      runtime: placed.sandbox.runtime,
      imageReference: placed.image.reference,
      imageDigest: placed.image.digest,
      limits: work.request.limits,
      state: null,
      pending: null,
      expiresAtMs: this.parts.clock.nowMs() + this.config.ttlMs,
    }
    this.#entries.set(work.id, entry)
    this.#shrink()
    return entry
  }

  async #retain(entry: Entry, sandbox: Sandbox, writableBytes: number | null): Promise<void> {
    const tooLarge = writableBytes !== null && writableBytes > this.config.entryBytesMax
    if (tooLarge) this.#entries.delete(entry.executionId)
    if (this.#entries.get(entry.executionId) !== entry) { // Too large, or dropped while it waited its turn.
      await sandbox[Symbol.asyncDispose]()
      return
    }
    let state: RetainedState
    try {
      state = await sandbox.retain()
    } catch (error) {
      this.parts.metrics.retention.failed++
      this.parts.log.warn({ sandbox: sandbox.id, execution: entry.executionId, err: error }, 'an end state could not be kept')
      this.#entries.delete(entry.executionId)
      await sandbox[Symbol.asyncDispose]() // I2
      return
    }
    entry.pending = null
    if (this.#entries.get(entry.executionId) !== entry || state.sizeBytes > this.config.entryBytesMax) {
      this.#entries.delete(entry.executionId)
      await state[Symbol.asyncDispose]()
      return
    }
    this.parts.metrics.retention.kept++
    entry.state = state
    this.#bytes += state.sizeBytes
    this.#shrink()
  }

  #shrink(): void {
    for (const entry of this.#entries.values()) {
      if (this.#entries.size <= this.config.countMax && this.#bytes <= this.config.bytesMax) return
      this.#drop(entry)
    }
  }

  #drop(entry: Entry): void {
    this.#entries.delete(entry.executionId)
    const { state } = entry
    if (state === null) return
    entry.state = null
    this.#bytes -= state.sizeBytes
    this.parts.metrics.retention.dropped++
    void this.parts.disposer.push(`end state of ${entry.executionId}`, () => state[Symbol.asyncDispose]())
  }
}
