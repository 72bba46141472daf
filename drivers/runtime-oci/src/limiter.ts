/** At most `max` at a time; the rest wait in order, each under its own signal. */
export interface Slot {
  release(): void
}

interface Waiter {
  readonly admit: () => void
}

export class Limiter {
  readonly #max: number
  readonly #waiting = new Set<Waiter>()
  #taken = 0

  constructor(max: number) {
    this.#max = max
  }

  /** @throws the signal's reason. */
  async take(signal: AbortSignal): Promise<Slot> {
    if (this.#taken >= this.#max) {
      await new Promise<void>((resolve, reject) => {
        const waiter: Waiter = {
          admit: () => {
            signal.removeEventListener('abort', onAbort)
            resolve()
          },
        }
        const onAbort = (): void => {
          this.#waiting.delete(waiter)
          reject(signal.reason as unknown)
        }
        signal.addEventListener('abort', onAbort, { once: true })
        this.#waiting.add(waiter)
      })
    } else {
      signal.throwIfAborted()
      this.#taken++
    }
    let released = false
    return {
      release: () => {
        if (released) return
        released = true
        this.#next()
      },
    }
  }

  /** Hands the place on, or frees it. */
  #next(): void {
    const [first] = this.#waiting
    if (first === undefined) {
      this.#taken--
      return
    }
    this.#waiting.delete(first)
    first.admit()
  }
}
