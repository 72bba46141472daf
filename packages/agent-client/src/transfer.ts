/**
 * One file operation that moves data: bytes in, bytes out, then one answer.
 *
 * I1. The guest never has more unconsumed bytes on the way than the window; more is a fault.
 * I2. An abort or an early stop sends CANCEL; the stream stays open until the guest's answer, and its data is dropped.
 */
import type { FaasError } from '@faas-platform/core'
import { Deferred } from './deferred.js'
import { decodeError } from './errors.js'
import { InputWindow } from './input-window.js'
import type { StreamHandler } from './stream-table.js'
import { FieldMap, KIND } from './wire.js'

export interface TransferLink {
  send(kind: number, stream: number, payload: Uint8Array): void
  close(stream: number): void
}

const EMPTY = new Uint8Array()
export const TRANSFER_WINDOW_BYTES = 256 * 1024

export class Transfer implements StreamHandler {
  readonly done = new Deferred<FieldMap>()
  readonly #link: TransferLink
  readonly #input: InputWindow
  #stream = 0
  #credit = TRANSFER_WINDOW_BYTES
  #consumed = 0
  #queue: Uint8Array[] = []
  #more: Deferred<void> | null = null
  #cancelled = false

  constructor(link: TransferLink, inputWindowBytes: number) {
    this.#link = link
    this.#input = new InputWindow(inputWindowBytes, (bytes) => link.send(KIND.data, this.#stream, bytes))
  }

  bind(stream: number): void {
    this.#stream = stream
  }

  /** Stops the operation; `done` rejects with `reason` at once. */
  cancel(reason: unknown): void {
    if (this.done.settled || this.#cancelled) return
    this.#cancelled = true
    this.#queue = []
    this.#link.send(KIND.cancel, this.#stream, EMPTY)
    this.#settleWith(reason)
  }

  /** Sends everything, then the end mark. */
  async sendAll(source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    for await (const chunk of source) await this.#input.write(chunk)
    if (!this.done.settled) this.#link.send(KIND.dataEnd, this.#stream, EMPTY)
  }

  /** Yields what arrives; stopping early cancels the operation. */
  async *receiveAll(): AsyncGenerator<Uint8Array, FieldMap, undefined> {
    try {
      for (;;) {
        for (let chunk = this.#queue.shift(); chunk !== undefined; chunk = this.#queue.shift()) {
          yield chunk
          this.#consume(chunk.length)
        }
        if (this.done.settled) return await this.done.promise
        this.#more = new Deferred<void>()
        await this.#more.promise
      }
    } finally {
      this.cancel(new Error('the reader stopped'))
    }
  }

  onMessage(kind: number, payload: Uint8Array): string | null {
    if (kind === KIND.window) {
      if (payload.length !== 5 || payload[0] !== 0) return 'a malformed WINDOW'
      return this.#input.grant(new DataView(payload.buffer, payload.byteOffset, 5).getUint32(1, true))
    }
    if (kind === KIND.error) {
      const error = decodeError(payload)
      if (error === null) return 'a malformed ERROR'
      this.#link.close(this.#stream)
      this.#settleWith(error)
      return null
    }
    if (kind !== KIND.ok) return 'a message that does not belong to a file operation'
    const fields = new FieldMap(payload)
    if (fields.malformed) return 'a malformed answer'
    this.#link.close(this.#stream)
    if (!this.done.settled) this.done.resolve(fields)
    this.#input.end(new Error('the operation is over')) // a source with more to say is let go
    this.#wake()
    return null
  }

  onData(kind: number, bytes: Uint8Array): string | null {
    if (kind !== KIND.data) return 'command output on the stream of a file operation'
    if (bytes.length > this.#credit) return 'file data beyond its credit'
    this.#credit -= bytes.length
    if (!this.#cancelled) {
      this.#queue.push(bytes)
      this.#wake()
    }
    return null
  }

  onLost(error: FaasError): void {
    this.#settleWith(error)
  }

  #settleWith(error: unknown): void {
    this.#input.end(error)
    if (!this.done.settled) this.done.reject(error)
    this.#wake()
  }

  #wake(): void {
    this.#more?.resolve()
    this.#more = null
  }

  #consume(bytes: number): void {
    this.#consumed += bytes
    if (this.#consumed < TRANSFER_WINDOW_BYTES / 4 || this.done.settled) return
    const payload = Buffer.allocUnsafe(5)
    payload.writeUInt8(0, 0)
    payload.writeUInt32LE(this.#consumed, 1)
    this.#credit += this.#consumed
    this.#consumed = 0
    this.#link.send(KIND.window, this.#stream, payload)
  }
}
