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
  #rate = 0
  #rateAtMs: number

  constructor(readonly key: string, readonly spec: PoolSpec, private readonly config: PoolConfig, nowMs: number) {
    this.idleMemoryBytes = config.idleMemoryBytesGuess
    this.lastArrivalMs = nowMs
    this.#rateAtMs = nowMs
  }

  arrived(nowMs: number): void {
    this.#rate = this.arrivalsPerSecond(nowMs) + 1000 / this.config.rateWindowMs
    this.#rateAtMs = nowMs
    this.lastArrivalMs = nowMs
  }

  /** An exponentially decaying count of arrivals. */
  arrivalsPerSecond(nowMs: number): number {
    return this.#rate * Math.exp(-(nowMs - this.#rateAtMs) / this.config.rateWindowMs)
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
