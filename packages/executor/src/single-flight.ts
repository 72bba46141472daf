/**
 * Runs one operation for everybody who asks for the same key at the same time.
 * It is aborted when the last of those who wait has gone, and only then.
 */
interface Flight<T> {
  readonly promise: Promise<T>
  readonly abort: AbortController
  waiters: number
}

export class SingleFlight<T> {
  readonly #flights = new Map<string, Flight<T>>()

  async do(key: string, signal: AbortSignal, start: (signal: AbortSignal) => Promise<T>): Promise<T> {
    signal.throwIfAborted()
    const flight = this.#flights.get(key) ?? this.#launch(key, start)
    flight.waiters++
    let onAbort: (() => void) | undefined
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => reject(signal.reason as Error)
      signal.addEventListener('abort', onAbort, { once: true })
    })
    try {
      return await Promise.race([flight.promise, aborted])
    } finally {
      if (onAbort !== undefined) signal.removeEventListener('abort', onAbort)
      flight.waiters--
      if (flight.waiters === 0 && this.#flights.get(key) === flight) {
        this.#flights.delete(key)
        flight.abort.abort(signal.reason)
      }
    }
  }

  #launch(key: string, start: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const abort = new AbortController()
    const promise = start(abort.signal)
    const flight: Flight<T> = { promise, abort, waiters: 0 }
    this.#flights.set(key, flight)
    const forget = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key)
    }
    promise.then(forget, forget) // Those who wait get the failure; this branch only tidies up.
    return flight
  }
}
