/** Open streams of one connection. The guest may only speak on those. */
import type { FaasError } from '@faas-platform/core'

export interface StreamHandler {
  /** Handles one message. Returns what is wrong with it, or null. */
  onMessage(kind: number, payload: Uint8Array): string | null
  /** Handles raw bytes. Returns what is wrong with them, or null. */
  onData(kind: number, bytes: Uint8Array): string | null
  /** The connection is gone. */
  onLost(error: FaasError): void
}

const ID_MAX = 0xffff_ffff

export class StreamTable {
  readonly #handlers = new Map<number, StreamHandler>()
  #last = 0

  open(handler: StreamHandler): number {
    do {
      this.#last = this.#last === ID_MAX ? 1 : this.#last + 1
    } while (this.#handlers.has(this.#last))
    this.#handlers.set(this.#last, handler)
    return this.#last
  }

  get(id: number): StreamHandler | undefined {
    return this.#handlers.get(id)
  }

  close(id: number): void {
    this.#handlers.delete(id)
  }

  loseAll(error: FaasError): void {
    const handlers = [...this.#handlers.values()]
    this.#handlers.clear()
    for (const handler of handlers) handler.onLost(error)
  }
}
