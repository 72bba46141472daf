/**
 * Turns a guest's bytes into messages. The guest is not trusted:
 *
 * I1. Whatever arrives, at most one header and one reply of `MAX_REPLY_BYTES` are held.
 * I2. Raw data is handed on as it arrives, as views of the chunk: no copy, no waiting for a whole frame.
 * I3. After a failure nothing more is read.
 */
import { FLAG_MORE, HEADER_BYTES, isRawKind, MAX_PAYLOAD_BYTES, MAX_REPLY_BYTES } from './wire.js'

export interface FrameSink {
  /** A whole structured message. */
  onMessage(kind: number, stream: number, payload: Uint8Array): void
  /** A piece of a data frame's payload, in order. */
  onData(kind: number, stream: number, bytes: Uint8Array): void
}

const EMPTY = Buffer.alloc(0)

export class FrameReader {
  readonly #sink: FrameSink
  readonly #header = Buffer.alloc(HEADER_BYTES)
  #headerFilled = 0
  /** Payload bytes of the current frame still to come; −1 while reading a header. */
  #left = -1
  #kind = 0
  #stream = 0
  #more = false
  #parts: Uint8Array[] = []
  #assembled = 0
  #spanning: { readonly kind: number; readonly stream: number } | null = null
  #failed: string | null = null

  constructor(sink: FrameSink) {
    this.#sink = sink
  }

  /** Makes the reader refuse everything from now on; for a sink that found a fault in a message. */
  stop(): void {
    this.#failed ??= 'the reader was stopped'
  }

  /** Takes a chunk. Returns what is wrong with it, or null. */
  push(chunk: Uint8Array): string | null {
    let at = 0
    while (at < chunk.length && this.#failed === null) {
      at = this.#left < 0 ? this.#takeHeader(chunk, at) : this.#takePayload(chunk, at)
    }
    return this.#failed
  }

  #takeHeader(chunk: Uint8Array, at: number): number {
    const n = Math.min(HEADER_BYTES - this.#headerFilled, chunk.length - at)
    this.#header.set(chunk.subarray(at, at + n), this.#headerFilled)
    this.#headerFilled += n
    if (this.#headerFilled < HEADER_BYTES) return at + n
    this.#headerFilled = 0
    const length = this.#header.readUInt32LE(0)
    const flags = this.#header.readUInt8(9)
    this.#stream = this.#header.readUInt32LE(4)
    this.#kind = this.#header.readUInt8(8)
    this.#more = (flags & FLAG_MORE) !== 0
    this.#failed = this.#judge(length, flags)
    if (this.#failed !== null) return at + n
    this.#left = length
    if (length === 0) this.#endFrame()
    return at + n
  }

  #judge(length: number, flags: number): string | null {
    if (length > MAX_PAYLOAD_BYTES) return 'a frame larger than the limit'
    if ((flags & ~FLAG_MORE) !== 0 || this.#header.readUInt16LE(10) !== 0) return 'unknown frame flags'
    if (this.#more && (isRawKind(this.#kind) || length === 0)) return 'a frame that can not be continued'
    const spanning = this.#spanning
    if (spanning !== null && (spanning.kind !== this.#kind || spanning.stream !== this.#stream)) {
      return 'a message interrupted by another frame'
    }
    if (!isRawKind(this.#kind) && this.#assembled + length > MAX_REPLY_BYTES) return 'a reply larger than the limit'
    return null
  }

  #takePayload(chunk: Uint8Array, at: number): number {
    const n = Math.min(this.#left, chunk.length - at)
    const bytes = chunk.subarray(at, at + n)
    this.#left -= n
    if (isRawKind(this.#kind)) {
      this.#sink.onData(this.#kind, this.#stream, bytes)
    } else {
      this.#parts.push(bytes)
      this.#assembled += n
    }
    if (this.#left === 0) this.#endFrame()
    return at + n
  }

  #endFrame(): void {
    this.#left = -1
    if (isRawKind(this.#kind)) return
    if (this.#more) {
      this.#spanning = { kind: this.#kind, stream: this.#stream }
      return
    }
    this.#spanning = null
    const [first] = this.#parts
    const payload = this.#parts.length > 1 ? Buffer.concat(this.#parts, this.#assembled) : (first ?? EMPTY)
    this.#parts = []
    this.#assembled = 0
    this.#sink.onMessage(this.#kind, this.#stream, payload)
  }
}
