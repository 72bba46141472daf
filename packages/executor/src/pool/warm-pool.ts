/**
 * Ready sandboxes per (runtime, image, limits, network), made ahead of demand and used once.
 *
 * I1. A sandbox leaves the pool once: taken by one request, or evicted. Nothing ever comes back.
 * I2. Idle sandboxes never hold more than `memoryBytesMax` by the estimate, over all keys.
 * I3. At most `creationConcurrencyMax` creations run, and those that a request waits for come first.
 * I4. No line has more creations running than requests waiting plus its missing target: a burst does not stampede.
 * I5. A creation that fails ends one wait, or delays the refill of its line by a growing pause; it never spins.
 * I6. `close` resolves when every sandbox the pool made was taken or given to the disposer.
 */
import { asId, FaasError, toFaasError, type Clock, type Ids, type ImageDigest, type LogSink, type Sandbox } from '@faas-platform/core'
import { draining } from '../admission.js'
import type { PoolConfig } from '../config.js'
import type { Disposer } from '../disposer.js'
import { linkSignals, sharedController } from '../link-signals.js'
import type { Metrics } from '../metrics.js'
import type { PoolReport } from '../types.js'
import { PoolLine, type Waiter } from './line.js'
import { poolKey, Slot, type PoolSpec, type TakenSandbox } from './slot.js'
import { OVER } from '../over.js'

export interface WarmPoolOptions {
  readonly config: PoolConfig
  readonly createTimeoutMs: number
  readonly clock: Clock
  readonly ids: Ids
  readonly log: LogSink
  readonly disposer: Disposer
  readonly metrics: Metrics
}

export class WarmPool {
  readonly #lines = new Map<string, PoolLine>()
  readonly #closing = sharedController()
  #creating = 0
  #arrivals = 0
  #ticking = false
  #refillPending = false
  #changed: (() => void)[] = []
  #idle: (() => void)[] = []

  constructor(private readonly options: WarmPoolOptions) {}

  /** A ready sandbox at once, or undefined. Counts as demand either way. */
  take(spec: PoolSpec): TakenSandbox | undefined {
    if (this.#closing.signal.aborted) throw draining()
    const now = this.options.clock.monotonicMs()
    const line = this.#lineOf(spec)
    line.arrived(now)
    const slot = line.ready.pop()
    if (slot === undefined) {
      line.misses++
      this.options.metrics.pool.misses++
      return undefined
    }
    line.hits++
    this.options.metrics.pool.hits++
    slot.become('taken') // I1
    this.#refillSoon()
    const sandbox = sandboxOf(slot)
    const { frozen } = slot
    const thaw = async (): Promise<void> => {
      if ((await frozen) === true) await sandbox.resume()
    }
    return { sandbox, start: 'warm', statsBefore: slot.stats, thaw: frozen === null ? null : thaw }
  }

  /** Waits in order of arrival for the next sandbox of this kind to be made. Call after `take` gave nothing. */
  wait(spec: PoolSpec, signal: AbortSignal): Promise<TakenSandbox> {
    if (this.#closing.signal.aborted) return Promise.reject(draining())
    const line = this.#lineOf(spec)
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason as Error)
        return
      }
      const onAbort = (): void => {
        line.waiters.delete(waiter)
        reject(signal.reason as Error)
        this.#shrinkToBudget() // What is being made for it will be idle.
      }
      const waiter: Waiter = {
        order: this.#arrivals++,
        resolve: (taken) => {
          signal.removeEventListener('abort', onAbort)
          resolve(taken)
        },
        reject: (error) => {
          signal.removeEventListener('abort', onAbort)
          reject(error)
        },
      }
      signal.addEventListener('abort', onAbort, { once: true })
      line.waiters.add(waiter)
      this.#schedule()
    })
  }

  /**
   * Keeps at least `count` ready from now on; 0 lets them go with the others.
   * Resolves when they are ready, or when they can not be, with the reason.
   */
  async prewarm(spec: PoolSpec, count: number, signal: AbortSignal): Promise<{ readonly ready: number; readonly limitedBy: string | null }> {
    const { config } = this.options
    if (!config.enabled) throw new FaasError('runtime/unsupported', { message: 'The warm pool is switched off on this gateway.' })
    const line = this.#lineOf(spec)
    if (line.floor === 0 && count > 0 && [...this.#lines.values()].filter((other) => other.floor > 0).length >= config.keysMax) {
      return { ready: line.ready.length, limitedBy: `At most ${config.keysMax} kinds of sandboxes are kept ready.` }
    }
    line.floor = Math.min(count, config.readyMaxPerKey)
    if (line.floor > 0) line.retryAtMs = 0 // Somebody asks: the pause after an earlier failure ends.
    const failuresBefore = line.failuresInRow
    this.#refill()
    this.#startTicking()
    for (;;) {
      signal.throwIfAborted()
      if (this.#closing.signal.aborted) throw draining()
      if (line.ready.length >= line.floor) return { ready: line.ready.length, limitedBy: line.floor < count ? `At most ${config.readyMaxPerKey} are kept ready per kind.` : null }
      if (line.failuresInRow > failuresBefore && line.lastError !== null) return { ready: line.ready.length, limitedBy: line.lastError.message }
      if (line.creating === 0 && !this.#hasRoom(line)) return { ready: line.ready.length, limitedBy: `The memory budget of idle sandboxes (${config.memoryBytesMax} bytes) is used up.` }
      await this.#nextChange(signal)
    }
  }

  reports(): readonly PoolReport[] {
    const now = this.options.clock.monotonicMs()
    return [...this.#lines.values()].map((line) => ({
      runtime: line.spec.driver.name,
      image: line.spec.image.reference,
      imageDigest: line.spec.image.digest,
      limits: line.spec.limits,
      network: line.spec.network,
      ready: line.ready.length,
      creating: line.creating,
      waiting: line.waiters.size,
      floor: line.floor,
      target: this.#target(line, now),
      hits: line.hits,
      misses: line.misses,
      arrivalsPerSecond: line.arrivalsPerSecond(now),
      createMs: line.createMs,
      idleMemoryBytes: Math.round(line.idleMemoryBytes),
      lastError: line.lastError?.message ?? null,
    }))
  }

  get idleBytes(): number {
    let bytes = 0
    for (const line of this.#lines.values()) bytes += line.idleBytes
    return bytes
  }

  /** Lets go of an image: its idle sandboxes end, and none are kept ready any more. Resolves when they are gone. */
  async release(digest: ImageDigest): Promise<void> {
    const gone: Promise<void>[] = []
    for (const line of this.#lines.values()) {
      if (line.spec.image.digest !== digest) continue
      line.floor = 0
      line.forget()
      while (line.ready.length > 0) gone.push(this.#evict(line, 0, 'evicted'))
    }
    await Promise.all(gone)
  }

  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#closing.abort(draining())
      for (const line of this.#lines.values()) {
        for (const waiter of [...line.waiters]) waiter.reject(draining())
        line.waiters.clear()
        while (line.ready.length > 0) void this.#evict(line, 0, 'evicted')
      }
      this.#notify()
    }
    if (this.#creating > 0) await new Promise<void>((resolve) => this.#idle.push(resolve)) // I6
  }

  #lineOf(spec: PoolSpec): PoolLine {
    const key = poolKey(spec)
    let line = this.#lines.get(key)
    if (line === undefined) {
      this.#dropIdleLines()
      line = new PoolLine(key, spec, this.options.config, this.options.clock.monotonicMs())
      this.#lines.set(key, line)
    }
    return line
  }

  /** Starts what those who wait need, in order of arrival; then, a moment later, refills. */
  #schedule(): void {
    if (this.#closing.signal.aborted) return
    while (this.#creating < this.options.config.creationConcurrencyMax) { // I3
      const line = this.#longestWaiting()
      if (line === undefined) break
      void this.#create(line)
    }
    this.#refillSoon()
    this.#startTicking()
  }

  /** A refill uses the processor that the command just handed out wants too: it waits a moment. */
  #refillSoon(): void {
    const { clock, config } = this.options
    if (config.refillDelayMs === 0) {
      this.#refill()
      return
    }
    if (this.#refillPending) return
    this.#refillPending = true
    void clock.delay(config.refillDelayMs).then(() => {
      this.#refillPending = false
      this.#refill()
    })
  }

  #refill(): void {
    if (this.#closing.signal.aborted) return
    while (this.#creating < this.options.config.creationConcurrencyMax) { // I3
      if (this.#anyoneWaits()) return // They come first, and a refill beside them would only slow them down.
      const line = this.#refillDue()
      if (line === undefined) return
      void this.#create(line)
    }
  }

  #anyoneWaits(): boolean {
    for (const line of this.#lines.values()) if (line.waiters.size > 0) return true
    return false
  }

  #longestWaiting(): PoolLine | undefined {
    let best: PoolLine | undefined
    for (const line of this.#lines.values()) {
      if (line.unmet === 0) continue // I4
      if (best === undefined || (line.firstWaiter?.order ?? Infinity) < (best.firstWaiter?.order ?? Infinity)) best = line
    }
    return best
  }

  #refillDue(): PoolLine | undefined {
    const now = this.options.clock.monotonicMs()
    let best: PoolLine | undefined
    let bestMissing = 0
    for (const line of this.#lines.values()) {
      const missing = this.#target(line, now) - line.ready.length - Math.max(0, line.creating - line.waiters.size)
      if (missing <= bestMissing || line.retryAtMs > now) continue // I4, I5
      if (!this.#hasRoom(line) && !this.#makeRoom(line)) continue
      best = line
      bestMissing = missing
    }
    return best
  }

  #target(line: PoolLine, now: number): number {
    return this.options.config.enabled ? line.target(now) : 0
  }

  #hasRoom(line: PoolLine): boolean {
    return this.idleBytes + line.idleMemoryBytes <= this.options.config.memoryBytesMax // I2
  }

  /** Ends idle sandboxes of lines whose last request is older, never below their floor. */
  #makeRoom(forLine: PoolLine): boolean {
    const victims = [...this.#lines.values()]
      .filter((line) => line !== forLine && line.ready.length > line.floor && (line.lastArrivalMs < forLine.lastArrivalMs || forLine.ready.length < forLine.floor))
      .sort((a, b) => a.lastArrivalMs - b.lastArrivalMs)
    const spare = victims.reduce((sum, line) => sum + (line.ready.length - line.floor) * line.idleMemoryBytes, 0)
    if (this.idleBytes - spare + forLine.idleMemoryBytes > this.options.config.memoryBytesMax) return false
    for (const line of victims) {
      while (line.ready.length > line.floor && !this.#hasRoom(forLine)) void this.#evict(line, 0, 'evicted')
    }
    return this.#hasRoom(forLine)
  }

  async #create(line: PoolLine): Promise<void> {
    const { clock, ids, metrics } = this.options
    this.#creating++
    line.creating++
    const slot = new Slot()
    const startedMs = clock.monotonicMs()
    metrics.pool.creations++
    try {
      const sandbox = await this.#createSandbox(line.spec, ids.uuid())
      line.created(clock.monotonicMs() - startedMs)
      metrics.coldStart(line.spec.driver.name, clock.monotonicMs() - startedMs, sandbox.timeBudget)
      slot.sandbox = sandbox
      slot.become('ready')
      this.#finishedCreating(line)
      this.#place(line, slot)
    } catch (error) {
      slot.become('failed')
      this.#finishedCreating(line)
      this.#creationFailed(line, toFaasError(error))
    }
    this.#schedule()
    this.#notify()
  }

  async #createSandbox({ driver, image, limits, network }: PoolSpec, id: string): Promise<Sandbox> {
    const timeout = new AbortController()
    const linked = linkSignals(timeout.signal, this.#closing.signal)
    const { clock, createTimeoutMs } = this.options
    clock.delay(createTimeoutMs, timeout.signal).then(
      () => timeout.abort(new FaasError('sandbox/create-timeout', { message: `The sandbox was not ready within ${createTimeoutMs} ms.` })),
      () => undefined, // Made in time.
    )
    try {
      return await driver.create(
        { id: asId(id), image, limits, network, hostname: id.slice(0, 12), labels: {} },
        { signal: linked.signal },
      )
    } finally {
      linked.release()
      timeout.abort(OVER)
    }
  }

  #finishedCreating(line: PoolLine): void {
    this.#creating--
    line.creating--
    if (this.#creating === 0) for (const resolve of this.#idle.splice(0)) resolve()
  }

  /** Gives a new sandbox to who waited longest; keeps it when nobody waits and it is wanted; ends it otherwise. */
  #place(line: PoolLine, slot: Slot): void {
    const sandbox = sandboxOf(slot)
    const waiter = line.firstWaiter
    if (waiter !== undefined && !this.#closing.signal.aborted) {
      line.waiters.delete(waiter)
      slot.become('taken')
      waiter.resolve({ sandbox, start: 'cold', statsBefore: null, thaw: null })
      return
    }
    const now = this.options.clock.monotonicMs()
    const wanted = !this.#closing.signal.aborted && line.ready.length < this.#target(line, now)
    slot.readySinceMs = now
    line.ready.push(slot)
    if (!wanted || this.idleBytes > this.options.config.memoryBytesMax) {
      void this.#evict(line, line.ready.length - 1, 'evicted')
      return
    }
    this.#watch(line, slot, sandbox)
  }

  /** An idle sandbox is measured once, and replaced when it dies by itself. */
  #watch(line: PoolLine, slot: Slot, sandbox: Sandbox): void {
    void sandbox.exited.then((exit) => {
      const index = line.ready.indexOf(slot)
      if (index === -1) return
      this.options.log.warn({ runtime: line.spec.driver.name, sandbox: sandbox.id, reason: exit.reason, message: exit.message }, 'an idle sandbox ended by itself')
      void this.#evict(line, index, 'died')
      line.failed(new FaasError('sandbox/lost', { message: `An idle sandbox ended by itself: ${exit.message}` }), this.options.clock.monotonicMs())
      this.#schedule()
      this.#notify()
    })
    sandbox.stats().then(
      (stats) => {
        slot.stats = stats
        line.measured(stats.memoryBytes)
        this.#shrinkToBudget()
      },
      (error: unknown) => {
        this.options.log.debug({ sandbox: sandbox.id, err: error }, 'an idle sandbox could not be measured')
      },
    )
  }

  /** Costs nothing but CPU when it fails: the sandbox waits awake. */
  async #freeze(slot: Slot): Promise<boolean> {
    const sandbox = sandboxOf(slot)
    try {
      slot.stats = await sandbox.stats() // What it used while it waited is not the next command's.
      await sandbox.pause()
      return true
    } catch (error) {
      if (slot.state === 'ready') this.options.log.warn({ sandbox: sandbox.id, err: error }, 'an idle sandbox could not be frozen')
      return false
    }
  }

  /** Ends a sandbox that was taken and turned out to be unusable. */
  reject({ sandbox }: TakenSandbox): void {
    void this.options.disposer.push(`pooled sandbox ${sandbox.id}`, () => sandbox[Symbol.asyncDispose]())
  }

  /** A measurement may show that more is held than the guess said. The least recently wanted go first. */
  #shrinkToBudget(): void {
    while (this.idleBytes > this.options.config.memoryBytesMax) {
      const victim = [...this.#lines.values()].filter((line) => line.ready.length > 0).sort((a, b) => a.lastArrivalMs - b.lastArrivalMs)[0]
      if (victim === undefined) return // All of it is in creation; `#place` settles it.
      void this.#evict(victim, 0, 'evicted')
    }
  }

  #creationFailed(line: PoolLine, error: FaasError): void {
    if (this.#closing.signal.aborted) return
    this.options.metrics.pool.failures++
    line.failed(error, this.options.clock.monotonicMs()) // I5
    this.options.log.warn({ runtime: line.spec.driver.name, image: line.spec.image.digest, err: error }, 'a sandbox could not be made')
    if (line.waiters.size <= line.creating) return
    const waiter = line.firstWaiter
    if (waiter === undefined) return
    line.waiters.delete(waiter)
    waiter.reject(error)
  }

  #evict(line: PoolLine, index: number, why: 'evicted' | 'died'): Promise<void> {
    const [slot] = line.ready.splice(index, 1)
    if (slot === undefined) return Promise.resolve()
    const sandbox = sandboxOf(slot)
    slot.become('evicting') // I1
    this.options.metrics.pool[why === 'died' ? 'deaths' : 'evictions']++
    return this.options.disposer.push(`pooled sandbox ${sandbox.id}`, () => sandbox[Symbol.asyncDispose]()).then(() => slot.become('gone'))
  }

  /** Lets go what was idle for too long and retries what failed; runs only while there are lines. */
  #startTicking(): void {
    if (this.#ticking || this.#lines.size === 0) return
    this.#ticking = true
    void this.#tick()
  }

  async #tick(): Promise<void> {
    const { clock, config } = this.options
    while (!this.#closing.signal.aborted && this.#lines.size > 0) {
      try {
        await clock.delay(config.tickMs, this.#closing.signal)
      } catch {
        break // Closed.
      }
      const now = clock.monotonicMs()
      for (const line of this.#lines.values()) {
        // The oldest are in front. A surplus that nobody needed for so long goes; without demand the target is the floor.
        while (line.ready.length > this.#target(line, now) && now - (line.ready[0]?.readySinceMs ?? now) >= config.idleMsMax) void this.#evict(line, 0, 'evicted')
        if (line.spec.driver.features.busyWhenIdle) for (const slot of line.ready) if (now - slot.readySinceMs >= config.freezeAfterMs) slot.frozen ??= this.#freeze(slot)
        const unused = line.ready.length === 0 && line.creating === 0 && line.waiters.size === 0 && line.floor === 0
        if (unused && now - line.lastArrivalMs >= config.idleMsMax) this.#lines.delete(line.key)
      }
      this.#schedule()
    }
    this.#ticking = false
  }

  #dropIdleLines(): void {
    while (this.#lines.size >= this.options.config.keysMax) {
      const oldest = [...this.#lines.values()]
        .filter((line) => line.creating === 0 && line.waiters.size === 0 && line.floor === 0)
        .sort((a, b) => a.lastArrivalMs - b.lastArrivalMs)[0]
      if (oldest === undefined) return // Every line is in use: those who wait bound their number.
      while (oldest.ready.length > 0) void this.#evict(oldest, 0, 'evicted')
      this.#lines.delete(oldest.key)
    }
  }

  #notify(): void {
    for (const wake of this.#changed.splice(0)) wake()
  }

  async #nextChange(signal: AbortSignal): Promise<void> {
    let wake: () => void = () => undefined
    await new Promise<void>((resolve) => {
      wake = resolve
      this.#changed.push(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
    signal.removeEventListener('abort', wake)
    this.#changed = this.#changed.filter((entry) => entry !== wake)
  }
}

function sandboxOf(slot: Slot): Sandbox {
  if (slot.sandbox === null) throw new FaasError('internal/bug', { message: 'A slot without a sandbox was used.' })
  return slot.sandbox
}
