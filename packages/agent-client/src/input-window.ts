/** Sends bytes no faster than the guest takes them; writers wait their turn. */
import { Deferred } from './deferred.js'
import { MAX_PAYLOAD_BYTES } from './wire.js'

/** The guest may never be granted more than this at once. */
const CREDIT_MAX = 0xffff_ffff

export class InputWindow {
  readonly #send: (bytes: Uint8Array) => void
  #credit: number
  #error: unknown
  #over = false
  #more: Deferred<void> | null = null
  #tail: Promise<void> = Promise.resolve()

  constructor(credit: number, send: (bytes: Uint8Array) => void) {
    this.#credit = credit
    this.#send = send
  }

  /** Returns what is wrong with the grant, or null. */
  grant(bytes: number): string | null {
    this.#credit += bytes
    if (this.#credit > CREDIT_MAX) return 'too much credit'
    this.#more?.resolve()
    this.#more = null
    return null
  }

  /** Rejects writers that wait, and later ones. */
  end(error: unknown): void {
    if (this.#over) return
    this.#over = true
    this.#error = error
    this.#more?.reject(error)
    this.#more = null
  }

  /** Resolves when all of it was sent. */
  write(bytes: Uint8Array): Promise<void> {
    const turn = this.#tail.then(() => this.#write(bytes))
    this.#tail = turn.catch(() => undefined) // each writer gets its own error
    return turn
  }

  /** Runs after every write so far. */
  after(action: () => void): Promise<void> {
    const turn = this.#tail.then(() => {
      if (!this.#over) action()
    })
    this.#tail = turn
    return turn
  }

  async #write(bytes: Uint8Array): Promise<void> {
    let at = 0
    while (at < bytes.length) {
      if (this.#over) throw this.#error
      if (this.#credit === 0) {
        this.#more = new Deferred<void>()
        await this.#more.promise
        continue
      }
      const part = bytes.subarray(at, at + Math.min(this.#credit, MAX_PAYLOAD_BYTES))
      at += part.length
      this.#credit -= part.length
      this.#send(part)
    }
  }
}
