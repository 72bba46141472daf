/**
 * Watches how much a sandbox has added to its file system, and ends it when that is more than its limit.
 *
 * I1. Looks are never closer together than the work they cost allows: at most a tenth of the time is spent looking.
 * I2. The less room is left, the sooner the next look: what can be written meanwhile bounds the overshoot.
 * I3. A failed look is logged and repeated; it never counts as "nothing written".
 */
import type { Clock, LogSink } from '@faas-platform/core'

const LOOK_MS_MIN = 100
const LOOK_MS_MAX = 2_000
/** Share of time that looking may take: 1/10. */
const DUTY = 10
/** Faster than most disks, so that I2 errs on the safe side. */
const WRITE_BYTES_PER_MS = 1_000_000

export interface DiskGuardOptions {
  /** Bytes added so far; may stop counting once past `enoughBytes`. */
  readonly measure: (enoughBytes: number) => Promise<number>
  readonly limitBytes: () => number
  readonly onOverLimit: (bytes: number) => void
  readonly clock: Clock
  readonly log: LogSink
}

export class DiskGuard {
  readonly #options: DiskGuardOptions
  readonly #stop = new AbortController()
  #started = false

  constructor(options: DiskGuardOptions) {
    this.#options = options
  }

  /** Begins to look; called with the first command, because nothing is written before. Idempotent. */
  start(): void {
    if (this.#started || this.#stop.signal.aborted) return
    this.#started = true
    void this.#watch()
  }

  stop(): void {
    this.#stop.abort()
  }

  async #watch(): Promise<void> {
    const { measure, limitBytes, onOverLimit, clock, log } = this.#options
    const { signal } = this.#stop
    let waitMs = LOOK_MS_MIN
    for (;;) {
      await clock.delay(waitMs, signal).catch(() => undefined) // aborted: seen below
      if (signal.aborted) return
      const startedMs = clock.monotonicMs()
      try {
        const limit = limitBytes()
        const bytes = await measure(limit)
        if (signal.aborted) return
        if (bytes > limit) {
          onOverLimit(bytes)
          return
        }
        const costMs = clock.monotonicMs() - startedMs
        waitMs = Math.max(LOOK_MS_MIN, costMs * DUTY, Math.min(LOOK_MS_MAX, (limit - bytes) / WRITE_BYTES_PER_MS)) // I1, I2
      } catch (error) {
        if (signal.aborted) return
        log.warn({ error }, 'the writable layer of a sandbox could not be measured') // I3
        waitMs = LOOK_MS_MAX
      }
    }
  }
}
