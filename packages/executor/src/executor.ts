/**
 * The use cases: run a command, submit one, look at and end executions, keep instances, keep things warm.
 *
 * I1. Every accepted execution ends in exactly one result, which `get` sees from the moment it is answered.
 * I2. After `drain` no sandbox that this executor made is left, except those whose disposal failed; these are counted.
 */
import {
  asId, EXECUTION_STATES, FaasError, GIB, isFinal, Stopwatch, type ExecuteRequest, type ExecutionEvent, type ExecutionId,
  type ExecutionKind, type ExecutionResult, type IdempotencyEntry, type ImageDigest, type PrincipalId, type ReclaimReport,
  type RuntimeName, type Sandbox, type UsageTotal,
} from '@faas-platform/core'
import { Admission, draining } from './admission.js'
import { Background } from './background.js'
import { Disposer } from './disposer.js'
import { Engine } from './engine.js'
import { ExecutionLog } from './execution-log.js'
import { abortable, History } from './history.js'
import { ImageResolver } from './images.js'
import { Instances } from './instances.js'
import { KeyedRuns } from './keyed-runs.js'
import { linkSignals, sharedController } from './link-signals.js'
import { LiveExecution } from './live-execution.js'
import { Metrics, type MetricsSnapshot } from './metrics.js'
import { modeTable } from './modes.js'
import { endedWithout } from './outcome.js'
import { Placement, type Progress } from './placement.js'
import { WarmPool } from './pool/warm-pool.js'
import { hashRequest } from './request-hash.js'
import { Retention } from './retention.js'
import { Runtimes } from './runtimes.js'
import { StopScope } from './stop-scope.js'
import type {
  CreateInstanceRequest, DrainReport, ExecutionView, ExecutorOptions, InstanceView, ListPage, ListQuery, PoolReport, PrewarmReport, PrewarmSpec,
  RetainedExecution, RunContext, RuntimeStatus, StartReport, SubmitContext,
} from './types.js'
import { OVER } from './over.js'

const NEVER = sharedController().signal

export class Executor implements AsyncDisposable {
  readonly #metrics = new Metrics()
  readonly #closing = sharedController()
  readonly #syncRuns = new Set<LiveExecution>()
  readonly #runtimes: Runtimes
  readonly #images: ImageResolver
  readonly #admission: Admission
  readonly #disposer: Disposer
  readonly #pool: WarmPool
  readonly #placement: Placement
  readonly #retention: Retention
  readonly #instances: Instances
  readonly #history: History
  readonly #keyed: KeyedRuns
  readonly #engine: Engine
  readonly #background: Background
  #pendingWrites = 0
  #draining: Promise<DrainReport> | undefined
  #housekeeping: Promise<void> | undefined

  constructor(private readonly options: ExecutorOptions) {
    const { drivers, ledger, logStore, clock, ids, log, config } = options
    const metrics = this.#metrics
    this.#runtimes = new Runtimes(drivers, config, clock, log)
    this.#images = new ImageResolver(clock, config.imageCacheMs)
    this.#admission = new Admission(config, clock)
    this.#disposer = new Disposer(config.teardown, clock, log)
    const disposer = this.#disposer
    this.#pool = new WarmPool({ config: config.pool, createTimeoutMs: config.createTimeoutMs, clock, ids, log, disposer, metrics })
    this.#placement = new Placement(this.#runtimes, this.#images, this.#pool, log)
    const placement = this.#placement
    this.#retention = new Retention(config.retention, { clock, log, disposer, metrics })
    this.#instances = new Instances({ config: config.instances, recordTtlMs: config.recordTtlMs, placement, ledger, disposer, clock, ids, log })
    this.#history = new History(ledger, logStore)
    this.#keyed = new KeyedRuns(ledger, clock, (id) => this.#history.live.get(id))
    const modes = modeTable({ placement, retention: this.#retention, instances: this.#instances })
    this.#engine = new Engine({ modes, config, clock, log, disposer, metrics })
    this.#background = new Background({
      config, engine: this.#engine, admission: this.#admission, ledger, log,
      usageOf: (result, live) => usageOf(result, live.request.limits.memoryBytes),
      onEnded: (live) => this.#forget(live),
    })
  }

  /** Frees what a killed process left, takes up its asynchronous work, looks at the runtimes. Call once, before anything else. */
  async start(signal: AbortSignal = NEVER): Promise<StartReport> {
    const reclaimed = await this.#reclaim(signal)
    const runtimes = await this.#runtimes.probe(signal)
    const instancesLost = await this.#instances.load()
    const { requeued, interrupted } = await this.#resume()
    this.#housekeeping = this.#keepHouse()
    this.options.log.info({ reclaimed, requeued, interrupted, instancesLost, usable: runtimes.filter((entry) => entry.probe.usable).map((entry) => entry.name) }, 'executor started')
    return { runtimes, reclaimed, requeued, interrupted, instancesLost }
  }

  /**
   * Runs a command and waits for its end. Every end of a command is a result; what keeps a command from running, and a lost sandbox, throws.
   * @throws FaasError `admission/*`, `runtime/*`, `image/*`, `mode/*`, `sandbox/*`, `instance/*`, `network/*`, `request/idempotency-conflict`
   */
  async run(request: ExecuteRequest, context: RunContext): Promise<ExecutionResult> {
    this.#checkOpen()
    const { idempotencyKey } = context
    if (idempotencyKey === undefined) return this.#follow(this.#begin(request, context, null), context)
    const hash = hashRequest(request)
    const joined = await this.#keyed.join(context.principal, idempotencyKey, hash, () => Promise.resolve(this.#begin(request, context, hash)))
    if (joined instanceof LiveExecution) return this.#follow(joined, context)
    const result = await this.#storedResult(joined, context.signal)
    if (result.outcome === 'error') throw new FaasError(result.errorCode ?? 'internal/bug', { message: result.message ?? 'The execution failed.' })
    return result
  }

  /**
   * Accepts a command durably and answers before it ran.
   * @throws FaasError `admission/*`, `store/unavailable`, `request/idempotency-conflict`
   */
  async submit(request: ExecuteRequest, context: SubmitContext): Promise<ExecutionView> {
    this.#checkOpen()
    const { principal, idempotencyKey } = context
    if (idempotencyKey === undefined) return (await this.#submit(request, context, null)).record()
    const hash = hashRequest(request)
    const joined = await this.#keyed.join(principal, idempotencyKey, hash, () => this.#submit(request, context, hash))
    return joined instanceof LiveExecution ? joined.record() : this.#history.get(joined, principal)
  }

  get(id: ExecutionId, principal: PrincipalId | null): Promise<ExecutionView> {
    return this.#history.get(id, principal)
  }

  list(query: ListQuery, principal: PrincipalId | null): Promise<ListPage> {
    return this.#history.list(query, principal)
  }

  /** Ends an execution and waits until it has ended. @throws FaasError `execution/not-found`, `execution/not-running` */
  async cancel(id: ExecutionId, principal: PrincipalId | null): Promise<ExecutionView> {
    const record = await this.#history.get(id, principal)
    const live = this.#history.live.get(id)
    if (live === undefined || isFinal(EXECUTION_STATES, record.state)) {
      throw new FaasError('execution/not-running', { message: `The execution already ended: ${record.state}.`, details: { id, state: record.state } })
    }
    live.scope.stop('cancelled', 'Cancelled on request.')
    const result = endedWithout(live, this.options.clock.nowMs(), 'cancelled', 'execution/cancelled', 'Cancelled on request before it started.')
    if (!(await this.#background.cancelQueued(live, result))) await live.ended
    return live.record()
  }

  /** The result, when it is there. Rejects with the signal's reason. */
  async wait(id: ExecutionId, principal: PrincipalId | null, signal: AbortSignal): Promise<ExecutionResult> {
    await this.#history.get(id, principal)
    return this.#storedResult(id, signal)
  }

  /** Every event from `fromSeq` on, replayed and live, up to the end. Pull at any pace. */
  subscribe(id: ExecutionId, principal: PrincipalId | null, options: { readonly fromSeq?: number; readonly signal?: AbortSignal } = {}): AsyncIterable<ExecutionEvent> {
    return this.#events(id, principal, options.fromSeq ?? 0, options.signal ?? NEVER)
  }

  runtimes(): readonly RuntimeStatus[] {
    return this.#runtimes.statuses()
  }

  probeRuntimes(signal: AbortSignal): Promise<readonly RuntimeStatus[]> {
    return this.#runtimes.probe(signal)
  }

  /** Call after an image was pulled, imported, built or removed. */
  invalidateImages(): void {
    this.#images.invalidate()
  }

  /** Lets go of an image before it is removed: idle sandboxes of it end. Resolves when they are gone. */
  async releaseImage(digest: ImageDigest): Promise<void> {
    this.#images.invalidate()
    await this.#pool.release(digest)
  }

  /** Keeps at least `count` sandboxes ready from now on; 0 lets them go. */
  async prewarm(spec: PrewarmSpec, count: number, { signal }: { readonly signal: AbortSignal }): Promise<PrewarmReport> {
    this.#checkOpen()
    const { chosen, image } = await this.#placement.resolve({ ...spec, features: [] }, this.#progress(signal))
    const { ready, limitedBy } = await this.#pool.prewarm({ driver: chosen.driver, image, limits: spec.limits, network: spec.network }, count, signal)
    return { runtime: chosen.driver.name, imageDigest: image.digest, wanted: count, ready, limitedBy }
  }

  pools(): readonly PoolReport[] {
    return this.#pool.reports()
  }

  /** The end state of a finished execution. @throws FaasError `execution/result-expired` */
  getRetained(id: ExecutionId, principal: PrincipalId | null): Promise<RetainedExecution> {
    return this.#retention.get(id, principal)
  }

  /** @throws FaasError `instance/limit`, `runtime/*`, `image/*`, `sandbox/*` */
  createInstance(request: CreateInstanceRequest, context: { readonly principal: PrincipalId; readonly signal: AbortSignal }): Promise<InstanceView> {
    this.#checkOpen()
    return this.#instances.create(context.principal, request, { createdBy: null, progress: this.#progress(context.signal) })
  }

  /** Runs a command in an instance, named by its id or by that of the execution that made it. */
  execInInstance(id: string, request: ExecuteRequest, context: RunContext): Promise<ExecutionResult> {
    const instanceId = this.#instances.get(id, context.principal).id
    return this.run({ ...request, mode: 'persistent', instanceId }, context)
  }

  listInstances(principal: PrincipalId | null): readonly InstanceView[] {
    return this.#instances.list(principal)
  }

  getInstance(id: string, principal: PrincipalId | null): InstanceView {
    return this.#instances.get(id, principal)
  }

  /** For streams and files. @throws FaasError `instance/not-found`, `instance/wrong-state` */
  instanceSandbox(id: string, principal: PrincipalId | null): Sandbox {
    return this.#instances.sandbox(id, principal)
  }

  stopInstance(id: string, principal: PrincipalId | null): Promise<InstanceView> {
    return this.#instances.stop(id, principal)
  }

  deleteInstance(id: string, principal: PrincipalId | null): Promise<void> {
    return this.#instances.delete(id, principal)
  }

  metrics(): MetricsSnapshot {
    const { config } = this.options
    const pools = this.#pool.reports()
    const sum = (of: (pool: PoolReport) => number): number => pools.reduce((total, pool) => total + of(pool), 0)
    return {
      ...this.#metrics.counted(),
      pool: { ...this.#metrics.pool, ready: sum((pool) => pool.ready), creating: sum((pool) => pool.creating), waiting: sum((pool) => pool.waiting), idleBytes: this.#pool.idleBytes, idleBytesMax: config.pool.memoryBytesMax },
      admission: { running: this.#admission.running, queued: this.#admission.queued, rejected: this.#metrics.rejected, concurrencyMax: config.concurrencyMax, queueMax: config.queueMax },
      async: { running: this.#background.running, queued: this.#background.queued },
      teardown: { backlog: this.#disposer.backlog, ...this.#disposer.counts },
      retention: { count: this.#retention.count, bytes: this.#retention.bytes, ...this.#metrics.retention },
      instances: { live: this.#instances.liveCount },
      ledger: { pendingWrites: this.#pendingWrites, failedWrites: this.#metrics.failedWrites },
    }
  }

  /** Takes no more work, lets what runs end until the deadline, hands back or ends the rest, frees everything. Idempotent. */
  drain(deadlineMs: number): Promise<DrainReport> {
    this.#draining ??= this.#drain(deadlineMs)
    return this.#draining
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.drain(0)
  }

  async #drain(deadlineMs: number): Promise<DrainReport> {
    this.#background.close()
    this.#admission.close()
    const allEnded = Promise.all([this.#background.idle(), ...[...this.#syncRuns].map((live) => live.ended)]).then(() => true)
    const timer = new AbortController()
    const inTime = await Promise.race([allEnded, this.options.clock.delay(deadlineMs, timer.signal).then(() => false, () => true)])
    timer.abort(OVER)
    let cancelled = 0
    if (!inTime) {
      for (const live of this.#history.live.values()) {
        if (live.result !== null) continue
        if (live.kind === 'sync') cancelled++
        live.scope.stop('shutdown', 'The gateway was shut down while the command ran.')
      }
      await allEnded
    }
    this.#closing.abort(draining())
    await this.#pool.close()
    await this.#instances.close()
    this.#retention.close()
    await this.#disposer.idle()
    await this.#housekeeping
    await this.options.ledger.flush()
    const report = { cancelled, handedBack: this.#background.handedBack, leftBehind: this.#disposer.counts.failed }
    this.options.log.info(report, 'executor drained')
    return report
  }

  async *#events(id: ExecutionId, principal: PrincipalId | null, fromSeq: number, signal: AbortSignal): AsyncGenerator<ExecutionEvent> {
    const linked = linkSignals(signal, this.#closing.signal)
    try {
      yield* this.#history.events(id, principal, fromSeq, linked.signal)
    } finally {
      linked.release()
    }
  }

  #checkOpen(): void {
    if (this.#draining !== undefined) throw draining()
  }

  #begin(request: ExecuteRequest, context: RunContext, requestHash: string | null): LiveExecution {
    const live = this.#newLive('sync', request, context, requestHash, context.onEvent)
    let ticket
    try {
      ticket = this.#admission.enter(context.principal, { signal: live.scope.signal, background: false })
    } catch (error) {
      this.#metrics.rejected++
      throw error
    }
    live.scope.arm(request.timeoutMs)
    this.#history.live.set(live.id, live)
    this.#syncRuns.add(live)
    void this.#engine.perform(live, { ticket, onPullProgress: context.onPullProgress }).then((result) => this.#finishSync(live, result))
    return live
  }

  async #submit(request: ExecuteRequest, context: SubmitContext, requestHash: string | null): Promise<LiveExecution> {
    const live = this.#newLive('async', request, context, requestHash)
    live.attempt = 0
    this.#history.live.set(live.id, live)
    try {
      await this.#background.accept(live, this.#idempotencyEntry(live))
    } catch (error) {
      this.#metrics.rejected++
      this.#history.live.delete(live.id)
      throw error
    }
    return live
  }

  #newLive(kind: ExecutionKind, request: ExecuteRequest, context: SubmitContext, requestHash: string | null, onEvent?: RunContext['onEvent']): LiveExecution {
    const { clock, ids, log, logStore, config } = this.options
    const id = context.id ?? asId<ExecutionId>(ids.uuid())
    if (this.#history.live.has(id)) throw new FaasError('request/idempotency-conflict', { message: 'An execution with this id is already here.', details: { id } })
    return new LiveExecution({
      id, kind, principal: context.principal, request, idempotencyKey: context.idempotencyKey ?? null, requestHash,
      createdAtMs: clock.nowMs(), log: new ExecutionLog(id, logStore, config.logMemoryBytesMax), scope: new StopScope(clock), onEvent,
    }, clock, log)
  }

  /** Waits for an execution as one of its callers. */
  async #follow(live: LiveExecution, { signal }: RunContext): Promise<ExecutionResult> {
    const caller = live.join(signal)
    try {
      const result = await live.ended
      if (live.failure !== null) throw live.failure
      return result
    } finally {
      caller.leave()
    }
  }

  async #storedResult(id: ExecutionId, signal: AbortSignal): Promise<ExecutionResult> {
    const live = this.#history.live.get(id)
    if (live !== undefined) {
      const linked = linkSignals(signal, this.#closing.signal)
      return abortable(live.ended, linked.signal).finally(() => linked.release())
    }
    const record = await this.#history.get(id, null)
    if (record.result === null) throw new FaasError('execution/interrupted', { message: 'The execution has not ended and does not run here.', details: { id } })
    return record.result
  }

  async #finishSync(live: LiveExecution, result: ExecutionResult): Promise<void> {
    const record = live.finalRecord(result)
    await live.end(result)
    this.#syncRuns.delete(live)
    // Written behind: the reply is on its way while the ledger gathers its next transaction.
    this.#pendingWrites++
    // Nobody's wish came true: a repeat with the same key may try again.
    const keepKey = result.outcome !== 'cancelled' && result.outcome !== 'error'
    const idempotency = keepKey ? this.#idempotencyEntry(live) : null
    try {
      await this.options.ledger.insertExecution(record, {
        durable: false, usage: usageOf(result, live.request.limits.memoryBytes), ...(idempotency === null ? {} : { idempotency }),
      })
    } catch (error) {
      this.#metrics.failedWrites++
      this.options.log.error({ execution: live.id, err: error }, 'the record of an execution could not be stored')
    } finally {
      this.#pendingWrites--
      this.#forget(live)
    }
  }

  #idempotencyEntry(live: LiveExecution): IdempotencyEntry | null {
    if (live.idempotencyKey === null || live.requestHash === null) return null
    return { principal: live.principal, key: live.idempotencyKey, requestHash: live.requestHash, executionId: live.id, expiresAtMs: live.createdAtMs + this.options.config.idempotencyTtlMs }
  }

  #forget(live: LiveExecution): void {
    if (this.#history.live.get(live.id) === live) this.#history.live.delete(live.id)
    this.#keyed.forget(live)
  }

  async #reclaim(signal: AbortSignal): Promise<Partial<Record<RuntimeName, ReclaimReport>>> {
    const reclaimed: Partial<Record<RuntimeName, ReclaimReport>> = {}
    for (const driver of this.#runtimes.drivers) {
      try {
        const report = await driver.reclaim(new Set(), signal)
        reclaimed[driver.name] = report
        if (Object.values(report).some((count) => count > 0)) this.options.log.warn({ runtime: driver.name, ...report }, 'freed what a killed process left')
      } catch (error) {
        signal.throwIfAborted()
        // A runtime that is not there has nothing to reclaim; its probe tells why. Anything else is for people to see.
        this.options.log.warn({ runtime: driver.name, err: error }, 'reclaiming failed')
      }
    }
    this.#metrics.reclaimed = reclaimed
    return reclaimed
  }

  async #resume(): Promise<{ readonly requeued: number; readonly interrupted: number }> {
    const { ledger, config, clock, log, logStore } = this.options
    let requeued = 0
    let interrupted = 0
    for (const record of await ledger.unfinishedExecutions(config.asyncQueueMax)) {
      const mayRun = record.attempt < config.asyncAttemptsMax && (record.state !== 'running' || record.request.rerunnable)
      const live = new LiveExecution({
        id: record.id, kind: 'async', principal: record.principal, request: record.request, idempotencyKey: record.idempotencyKey,
        requestHash: record.requestHash, createdAtMs: record.createdAtMs, log: new ExecutionLog(record.id, logStore, config.logMemoryBytesMax),
        scope: new StopScope(clock), attempt: record.attempt,
        life: mayRun ? { state: 'queued', incarnation: record.incarnation + 1 } : { state: record.state, incarnation: record.incarnation },
      }, clock, log)
      this.#history.live.set(live.id, live)
      if (mayRun) {
        requeued++
        await this.#background.readmit(live, record.incarnation)
        continue
      }
      interrupted++
      await live.log.close({ keepOnDisk: false })
      const message = record.request.rerunnable
        ? `The gateway was stopped during each of ${record.attempt} attempts to run the command.`
        : 'The gateway was stopped while the command ran, and the request does not allow to run it again.'
      await this.#background.conclude(live, record.incarnation, endedWithout(live, clock.nowMs(), 'error', 'execution/interrupted', message))
    }
    return { requeued, interrupted }
  }

  async #keepHouse(): Promise<void> {
    const { clock, config, log } = this.options
    for (;;) {
      try {
        await clock.delay(config.housekeepingMs, this.#closing.signal)
      } catch {
        return // Drained.
      }
      try {
        this.#retention.sweep()
        this.#instances.sweep()
        await this.#prune()
      } catch (error) {
        log.error({ err: error }, 'housekeeping failed; it will be tried again')
      }
    }
  }

  async #prune(): Promise<void> {
    const { clock, config, ledger, logStore } = this.options
    const now = clock.nowMs()
    const gone = await ledger.pruneExecutions({ endedBeforeMs: now - config.recordTtlMs, countMax: config.recordsMax })
    if (gone.length > 0) await logStore.remove(gone)
    await ledger.pruneIdempotency(now)
    await logStore.prune(config.logStoreBytesMax, new Set(this.#history.live.keys()))
  }

  #progress(signal: AbortSignal): Progress {
    return { watch: new Stopwatch(this.options.clock), signal, decision: null, image: null }
  }
}

function usageOf(result: ExecutionResult, memoryBytes: number): UsageTotal {
  return {
    principal: result.principal,
    day: new Date(result.endedAtMs).toISOString().slice(0, 10),
    executions: 1,
    wallMs: result.usage.wallMs,
    cpuMs: result.usage.cpuMs,
    memoryGibSeconds: (result.usage.wallMs / 1000) * (memoryBytes / GIB),
    outputBytes: result.usage.outputBytes,
  }
}
