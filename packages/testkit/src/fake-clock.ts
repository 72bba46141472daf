/**
 * A clock that only moves when told to.
 *
 * I1. Delays end in order of their due time; equal ones in the order in which they were asked for.
 * I2. While a delay's followers run, the clock shows that delay's due time, never a later one.
 */
import type { Clock } from '@faas-platform/core'

interface Waiter {
  readonly dueMs: number
  readonly order: number
  readonly resolve: () => void
}

export interface FakeClockOptions {
  /** Wall time at the start, ms since the epoch. Default 2026-01-01T00:00:00Z. */
  readonly nowMs?: number
}

/** Turns of the event loop that followers get to ask for their next delay before the clock moves on. */
const SETTLE_TURNS = 10

export class FakeClock implements Clock {
  readonly #startWallMs: number
  #elapsedMs = 0
  #order = 0
  #waiters: Waiter[] = []
  #arrival: (() => void)[] = []

  constructor(options: FakeClockOptions = {}) {
    this.#startWallMs = options.nowMs ?? Date.UTC(2026, 0, 1)
  }

  nowMs(): number {
    return this.#startWallMs + Math.floor(this.#elapsedMs)
  }

  monotonicMs(): number {
    return this.#elapsedMs
  }

  /** How many delays are waiting. */
  get pending(): number {
    return this.#waiters.length
  }

  /** When the next delay ends, on the monotonic scale; null when none waits. */
  get nextDueMs(): number | null {
    return this.#waiters.reduce<number | null>((least, w) => (least === null || w.dueMs < least ? w.dueMs : least), null)
  }

  delay(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as unknown)
        return
      }
      const onAbort = (): void => {
        this.#waiters = this.#waiters.filter((w) => w !== waiter)
        reject(signal?.reason as unknown)
      }
      const waiter: Waiter = {
        dueMs: this.#elapsedMs + Math.max(0, ms),
        order: this.#order++,
        resolve: () => {
          signal?.removeEventListener('abort', onAbort)
          resolve()
        },
      }
      this.#waiters.push(waiter)
      signal?.addEventListener('abort', onAbort, { once: true })
      const arrivals = this.#arrival
      this.#arrival = []
      for (const wake of arrivals) wake()
    })
  }

  /** Moves on by `ms`, ending every delay that falls due on the way, also those asked for on the way. */
  async advance(ms: number): Promise<void> {
    const targetMs = this.#elapsedMs + ms
    await this.#settle()
    for (let waiter = this.#takeDue(targetMs); waiter !== undefined; waiter = this.#takeDue(targetMs)) {
      this.#elapsedMs = waiter.dueMs // I2
      waiter.resolve()
      await this.#settle()
    }
    this.#elapsedMs = targetMs
  }

  /** Moves to the next due delay and ends it. False when none waits. */
  async advanceToNext(): Promise<boolean> {
    await this.#settle()
    const due = this.nextDueMs
    if (due === null) return false
    await this.advance(due - this.#elapsedMs)
    return true
  }

  /** Resolves when at least `count` delays wait: the code under test has reached its wait. */
  async whenPending(count = 1): Promise<void> {
    while (this.#waiters.length < count) await new Promise<void>((resolve) => this.#arrival.push(resolve))
  }

  #takeDue(limitMs: number): Waiter | undefined {
    let next: Waiter | undefined
    for (const w of this.#waiters) {
      if (w.dueMs <= limitMs && (next === undefined || w.dueMs < next.dueMs || (w.dueMs === next.dueMs && w.order < next.order))) next = w
    }
    if (next !== undefined) this.#waiters = this.#waiters.filter((w) => w !== next)
    return next
  }

  async #settle(): Promise<void> {
    for (let turn = 0; turn < SETTLE_TURNS; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
  }
}
