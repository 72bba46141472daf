/**
 * Runs equal work once for everybody who asks for it at the same time.
 *
 * I1. The work is aborted when the last one who waits for it has gone, not earlier.
 * I2. A listener hears progress from when it joined.
 */
export class SingleFlight<T, Progress> {
  readonly #flights = new Map<string, Flight<T, Progress>>()

  run(
    key: string,
    caller: { readonly signal: AbortSignal; readonly onProgress?: ((progress: Progress) => void) | undefined },
    work: (signal: AbortSignal, onProgress: (progress: Progress) => void) => Promise<T>,
  ): Promise<T> {
    if (caller.signal.aborted) return Promise.reject(reasonOf(caller.signal))
    let flight = this.#flights.get(key)
    if (flight === undefined) {
      const started = new Flight<T, Progress>(work)
      const forget = (): void => {
        if (this.#flights.get(key) === started) this.#flights.delete(key)
      }
      started.result.then(forget, forget)
      // Whoever comes after the last waiter left must not join what is already being aborted.
      started.abort.signal.addEventListener('abort', forget, { once: true })
      this.#flights.set(key, started)
      flight = started
    }
    return flight.join(caller)
  }
}

class Flight<T, Progress> {
  readonly abort = new AbortController()
  readonly result: Promise<T>
  readonly #listeners = new Set<(progress: Progress) => void>()
  #waiters = 0

  constructor(work: (signal: AbortSignal, onProgress: (progress: Progress) => void) => Promise<T>) {
    this.result = work(this.abort.signal, (progress) => {
      for (const listener of this.#listeners) listener(progress)
    })
  }

  async join({ signal, onProgress }: { readonly signal: AbortSignal; readonly onProgress?: ((progress: Progress) => void) | undefined }): Promise<T> {
    this.#waiters++
    const listener = onProgress === undefined ? undefined : (progress: Progress): void => onProgress(progress)
    if (listener !== undefined) this.#listeners.add(listener)
    let onAbort: (() => void) | undefined
    try {
      return await new Promise<T>((resolve, reject) => {
        onAbort = () => {
          // The last one waits for the work to clean up after itself.
          if (this.#waiters === 1) this.abort.abort(signal.reason)
          else reject(reasonOf(signal))
        }
        signal.addEventListener('abort', onAbort, { once: true })
        this.result.then(resolve, reject)
      })
    } finally {
      if (onAbort !== undefined) signal.removeEventListener('abort', onAbort)
      if (listener !== undefined) this.#listeners.delete(listener)
      this.#waiters--
    }
  }
}

export function reasonOf(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new DOMException('The operation was aborted.', 'AbortError')
}
