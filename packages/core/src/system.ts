/** The real clock and id source; tests pass `testkit`'s. The only place of core that touches the process. */
import type { Clock, Ids, LogSink } from './ports.js'

export const systemClock: Clock = {
  nowMs: () => Date.now(),
  monotonicMs: () => performance.now(),
  delay: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted === true) {
        reject(signal.reason as unknown)
        return
      }
      const onAbort = (): void => {
        clearTimeout(timer)
        reject(signal?.reason as unknown)
      }
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort)
        resolve()
      }, ms)
      signal?.addEventListener('abort', onAbort, { once: true })
    }),
}

export const systemIds: Ids = { uuid: () => globalThis.crypto.randomUUID() }

export const silentLog: LogSink = { debug() {}, info() {}, warn() {}, error() {} }

/** Measures phases one after the other; the sum of all phases is the time since it was made. */
export class Stopwatch {
  readonly #phases = new Map<string, number>()
  #lastMs: number

  constructor(private readonly clock: Clock) {
    this.#lastMs = clock.monotonicMs()
  }

  /** Ends the phase that runs since the last call and adds its time under `name`. */
  lap(name: string): number {
    const now = this.clock.monotonicMs()
    const elapsed = now - this.#lastMs
    this.#lastMs = now
    this.#phases.set(name, (this.#phases.get(name) ?? 0) + elapsed)
    return elapsed
  }

  /** Phase → ms rounded to microseconds. */
  budget(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#phases].map(([name, ms]) => [name, Math.round(ms * 1000) / 1000]))
  }
}
