/**
 * The ready sandboxes, the requests that wait and the demand of one pool key.
 * Bookkeeping only: what to create or end is decided by the pool over all lines.
 */
import type { FaasError } from '@faas-platform/core'
import type { PoolConfig } from '../config.js'
import type { PoolSpec, Slot, TakenSandbox } from './slot.js'

export interface Waiter {
  /** Order of arrival over all lines. */
  readonly order: number
  readonly resolve: (taken: TakenSandbox) => void
  readonly reject: (error: Error) => void
}

const CREATE_WEIGHT = 0.3
const MEMORY_WEIGHT = 0.3
/** Arrivals closer together than this say nothing about a rate. */
const RATE_AGE_MIN_MS = 1_000

export class PoolLine {
  /** The last is the youngest; it is taken first, so that the oldest can go when demand falls. */
  readonly ready: Slot[] = []
  readonly waiters = new Set<Waiter>()
  creating = 0
  floor = 0
  hits = 0
  misses = 0
  createMs: number | null = null
  idleMemoryBytes: number
  lastArrivalMs: number
  lastError: FaasError | null = null
  retryAtMs = 0
  failuresInRow = 0
  /** Arrivals, each weighing less the longer ago it was. */
  #recent = 0
  #recentAtMs: number
  #firstArrivalMs: number | null = null

  constructor(readonly key: string, readonly spec: PoolSpec, private readonly config: PoolConfig, nowMs: number) {
    this.idleMemoryBytes = config.idleMemoryBytesGuess
    this.lastArrivalMs = nowMs
    this.#recentAtMs = nowMs
  }

  arrived(nowMs: number): void {
    this.#recent = this.#recentCount(nowMs) + 1
    this.#recentAtMs = nowMs
    this.#firstArrivalMs ??= nowMs
    this.lastArrivalMs = nowMs
  }

  /** Starts anew, as if nobody had asked. */
  forget(): void {
    this.#recent = 0
    this.#firstArrivalMs = null
    this.hits = 0
    this.misses = 0
  }

  /** The decaying count over the time it stands for: short at first, so that a new line learns at once. */
  arrivalsPerSecond(nowMs: number): number {
    if (this.#firstArrivalMs === null) return 0
    const { rateWindowMs } = this.config
    const ageMs = Math.max(RATE_AGE_MIN_MS, nowMs - this.#firstArrivalMs)
    return (this.#recentCount(nowMs) * 1000) / (rateWindowMs * (1 - Math.exp(-ageMs / rateWindowMs)))
  }

  #recentCount(nowMs: number): number {
    return this.#recent * Math.exp(-(nowMs - this.#recentAtMs) / this.config.rateWindowMs)
  }

  /** Ready sandboxes wanted now: enough to bridge one creation at the present rate of arrival. */
  target(nowMs: number): number {
    const inDemand = nowMs - this.lastArrivalMs < this.config.idleMsMax && (this.hits > 0 || this.misses > 0)
    const forDemand = inDemand ? Math.max(1, Math.ceil((this.arrivalsPerSecond(nowMs) * (this.createMs ?? 0) * this.config.safety) / 1000)) : 0
    return Math.min(this.config.readyMaxPerKey, Math.max(this.floor, forDemand))
  }

  /** Creations that those who wait still need. */
  get unmet(): number {
    return Math.max(0, this.waiters.size - this.creating)
  }

  get firstWaiter(): Waiter | undefined {
    for (const waiter of this.waiters) return waiter
    return undefined
  }

  /** Memory that its idle sandboxes hold, counting those being made without anybody waiting for them. */
  get idleBytes(): number {
    return (this.ready.length + Math.max(0, this.creating - this.waiters.size)) * this.idleMemoryBytes
  }

  created(tookMs: number): void {
    this.createMs = this.createMs === null ? tookMs : this.createMs + (tookMs - this.createMs) * CREATE_WEIGHT
    this.failuresInRow = 0
    this.retryAtMs = 0
    this.lastError = null
  }

  failed(error: FaasError, nowMs: number): void {
    this.lastError = error
    const pause = Math.min(this.config.backoffMsMax, this.config.backoffMs * 2 ** this.failuresInRow)
    this.failuresInRow = Math.min(30, this.failuresInRow + 1)
    this.retryAtMs = nowMs + pause
  }

  measured(memoryBytes: number): void {
    this.idleMemoryBytes += (memoryBytes - this.idleMemoryBytes) * (this.idleMemoryBytes === this.config.idleMemoryBytesGuess ? 1 : MEMORY_WEIGHT)
  }
}
