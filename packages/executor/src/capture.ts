/**
 * Keeps the head and the tail of a stream in bounded memory.
 *
 * I1. Never more than `bytesMax` bytes of the stream are held, beside one chunk of slack.
 * I2. What was left out is said in one marker line, with its size.
 */
import type { CapturedStream } from '@faas-platform/core'

export class StreamCapture {
  readonly #headMax: number
  readonly #tailMax: number
  readonly #head: Uint8Array[] = []
  #headBytes = 0
  /** Chunks after the head; whole chunks leave at the front when the rest is enough. */
  #tail: Uint8Array[] = []
  #tailBytes = 0
  #totalBytes = 0

  constructor(bytesMax: number) {
    this.#headMax = Math.ceil(bytesMax / 2)
    this.#tailMax = Math.floor(bytesMax / 2)
  }

  get totalBytes(): number {
    return this.#totalBytes
  }

  push(bytes: Uint8Array): void {
    this.#totalBytes += bytes.length
    const room = this.#headMax - this.#headBytes
    const intoHead = room > 0 ? Math.min(room, bytes.length) : 0
    if (intoHead > 0) {
      this.#head.push(intoHead === bytes.length ? bytes : bytes.subarray(0, intoHead))
      this.#headBytes += intoHead
    }
    if (intoHead < bytes.length) this.#pushTail(bytes.subarray(intoHead))
  }

  finish(): CapturedStream {
    const leftOut = this.#totalBytes - this.#headBytes - Math.min(this.#tailBytes, this.#tailMax)
    if (leftOut === 0) return { bytes: join([...this.#head, ...this.#tail]), totalBytes: this.#totalBytes, truncated: false }
    // Cuts move to character borders, so that UTF-8 text stays valid on both sides of the marker.
    const headAll = join(this.#head)
    const head = headAll.subarray(0, characterEnd(headAll))
    const tailAll = join(this.#tail)
    const rawTail = tailAll.subarray(tailAll.length - Math.min(this.#tailBytes, this.#tailMax))
    const tail = rawTail.subarray(characterStart(rawTail))
    const missing = this.#totalBytes - head.length - tail.length
    const marker = new TextEncoder().encode(`${head.length > 0 && head[head.length - 1] !== 0x0a ? '\n' : ''}… ${missing} bytes left out …\n`)
    return { bytes: join([head, marker, tail]), totalBytes: this.#totalBytes, truncated: true }
  }

  #pushTail(bytes: Uint8Array): void {
    this.#tail.push(bytes)
    this.#tailBytes += bytes.length
    let gone = 0
    for (let chunk = this.#tail[gone]; chunk !== undefined && this.#tailBytes - chunk.length >= this.#tailMax; chunk = this.#tail[gone]) {
      this.#tailBytes -= chunk.length
      gone++
    }
    if (gone > 0) this.#tail = this.#tail.slice(gone)
  }
}

export function join(chunks: readonly Uint8Array[]): Uint8Array {
  const only = chunks[0]
  if (chunks.length === 1 && only !== undefined) return only
  let length = 0
  for (const chunk of chunks) length += chunk.length
  const whole = new Uint8Array(length)
  let at = 0
  for (const chunk of chunks) {
    whole.set(chunk, at)
    at += chunk.length
  }
  return whole
}

/** Where the last whole UTF-8 character ends, at most three bytes before the end. */
function characterEnd(bytes: Uint8Array): number {
  for (let back = 1; back <= Math.min(4, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0
    if ((byte & 0xc0) === 0x80) continue
    const wanted = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
    return wanted > back ? bytes.length - back : bytes.length
  }
  return bytes.length
}

function characterStart(bytes: Uint8Array): number {
  let at = 0
  while (at < Math.min(3, bytes.length) && ((bytes[at] ?? 0) & 0xc0) === 0x80) at++
  return at
}
