/** Writes frames to a stream pair, coalesced per turn of the event loop, and reads frames from it. */
import type { Readable, Writable } from 'node:stream'
import { FrameReader, type FrameSink } from './frame-reader.js'
import { encodeHeader, FLAG_MORE, HEADER_BYTES, MAX_PAYLOAD_BYTES } from './wire.js'

/** A socket is both; pipes are two. */
export type AgentStream = (Readable & Writable) | { readonly readable: Readable; readonly writable: Writable }

export interface TransportEvents extends FrameSink {
  /** Called once, when nothing more will be read or written. `fault` is what the guest did wrong, if it did. */
  onEnd(fault: string | null, cause: unknown): void
}

export class Transport {
  readonly #readable: Readable
  readonly #writable: Writable
  readonly #reader: FrameReader
  readonly #events: TransportEvents
  #corked = false
  #ended = false

  constructor(stream: AgentStream, events: TransportEvents) {
    const pair = 'writable' in stream && typeof stream.writable === 'object'
    this.#readable = pair ? (stream.readable as Readable) : (stream as Readable)
    this.#writable = pair ? stream.writable : (stream as unknown as Writable)
    this.#events = events
    this.#reader = new FrameReader(events)
    this.#readable.on('data', this.#onData)
    this.#readable.on('end', this.#onGone)
    this.#readable.on('close', this.#onGone)
    this.#readable.on('error', this.#onGone)
    this.#writable.on('error', this.#onGone)
    this.#writable.on('close', this.#onGone)
  }

  get ended(): boolean {
    return this.#ended
  }

  /** Sends a message, split into frames where it is long. */
  send(kind: number, stream: number, payload: Uint8Array): void {
    let at = 0
    do {
      const part = payload.subarray(at, at + MAX_PAYLOAD_BYTES)
      at += part.length
      this.#frame(kind, stream, part, at < payload.length ? FLAG_MORE : 0)
    } while (at < payload.length)
  }

  #frame(kind: number, stream: number, part: Uint8Array, flags: number): void {
    if (this.#ended) return
    if (!this.#corked) {
      this.#corked = true
      this.#writable.cork()
      process.nextTick(() => {
        this.#corked = false
        this.#writable.uncork()
      })
    }
    // Small frames in one buffer: one element per write instead of two.
    const small = part.length <= 1024
    const head = Buffer.allocUnsafe(small ? HEADER_BYTES + part.length : HEADER_BYTES)
    encodeHeader(head, kind, stream, part.length, flags)
    if (small) head.set(part, HEADER_BYTES)
    this.#writable.write(head)
    if (!small) this.#writable.write(part)
  }

  /** Ends the connection; a fault is reported as the guest's. */
  fail(fault: string): void {
    this.#end(fault, undefined)
  }

  close(): void {
    this.#end(null, undefined)
  }

  readonly #onData = (chunk: Uint8Array): void => {
    if (this.#ended) return
    const fault = this.#reader.push(chunk)
    if (fault !== null) this.#end(fault, undefined)
  }

  readonly #onGone = (cause?: unknown): void => {
    this.#end(null, cause)
  }

  #end(fault: string | null, cause: unknown): void {
    if (this.#ended) return
    this.#ended = true
    this.#reader.stop()
    this.#readable.off('data', this.#onData)
    this.#readable.destroy()
    // What was queued before an orderly close still goes out with the next tick's uncork.
    if (this.#corked) this.#writable.uncork()
    this.#writable.end()
    this.#writable.destroy()
    this.#events.onEnd(fault, cause)
  }
}
