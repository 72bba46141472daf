/**
 * One direction of output with credit.
 *
 * I1. The guest never has more unconsumed bytes on the way than `windowBytes`; more is a fault.
 * I2. The sink gets chunks in order, the next only after its promise for the last one settled.
 * I3. A synchronous sink costs no promise and no copy.
 */

export type OutputSink = (bytes: Uint8Array) => void | Promise<void>

export interface OutputChannelOptions {
  readonly windowBytes: number
  readonly sink: OutputSink
  /** Gives the guest more credit. */
  readonly grant: (bytes: number) => void
  /** The sink threw or rejected. Called once; later bytes are dropped, and granted so that the guest can end. */
  readonly onSinkError: (error: unknown) => void
}

export class OutputChannel {
  readonly #options: OutputChannelOptions
  #credit: number
  #consumed = 0
  #queue: Uint8Array[] = []
  #busy = false
  #dropping = false
  #onIdle: (() => void) | null = null

  constructor(options: OutputChannelOptions) {
    this.#options = options
    this.#credit = options.windowBytes
  }

  /** Returns what is wrong, or null. */
  push(bytes: Uint8Array): string | null {
    if (bytes.length > this.#credit) return 'output beyond its credit' // I1
    this.#credit -= bytes.length
    if (this.#busy) this.#queue.push(bytes)
    else this.#deliver(bytes)
    return null
  }

  /** Drops what comes from now on. */
  drop(): void {
    this.#dropping = true
    const queued = this.#queue.reduce((sum, chunk) => sum + chunk.length, 0)
    this.#queue = []
    this.#consume(queued)
  }

  /** Calls back once every byte so far was consumed. */
  whenIdle(callback: () => void): void {
    if (this.#busy) this.#onIdle = callback
    else callback()
  }

  #deliver(bytes: Uint8Array): void {
    if (this.#dropping) {
      this.#consume(bytes.length)
      return
    }
    let settled: void | Promise<void>
    try {
      settled = this.#options.sink(bytes)
    } catch (error) {
      this.#fail(error, bytes.length)
      return
    }
    if (settled === undefined) {
      this.#consume(bytes.length) // I3
      return
    }
    this.#busy = true
    settled.then(
      () => this.#settle(bytes.length),
      (error: unknown) => {
        this.#fail(error, 0)
        this.#settle(bytes.length)
      },
    )
  }

  #settle(bytes: number): void {
    this.#busy = false
    this.#consume(bytes)
    for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
      this.#deliver(next)
      if (this.#busy) return
    }
    this.#onIdle?.()
    this.#onIdle = null
  }

  #fail(error: unknown, bytes: number): void {
    const first = !this.#dropping
    this.drop()
    this.#consume(bytes)
    if (first) this.#options.onSinkError(error)
  }

  #consume(bytes: number): void {
    this.#consumed += bytes
    if (this.#consumed < this.#options.windowBytes / 4) return
    this.#credit += this.#consumed
    this.#options.grant(this.#consumed)
    this.#consumed = 0
  }
}
