/**
 * Walks the frames of a zstd stream without decoding them, and refuses what would make a decoder
 * allocate without bound or wait for data that never comes.
 *
 * @see RFC 8878 section 3.1
 */
import { invalidImage } from './manifest.js'

/** What the zstd tool itself accepts without being told otherwise (window log 27). */
const WINDOW_BYTES_MAX = 128 * 1024 * 1024
const MAGIC = 0xfd2fb528

type State = 'magic' | 'descriptor' | 'header' | 'block' | 'skip-size'

export class ZstdFrameGuard {
  #state: State = 'magic'
  #need = 4
  #have: number[] = []
  /** Bytes to pass over before the next field. */
  #skip = 0
  #descriptor = 0
  #checksum = false

  push(chunk: Uint8Array): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const step = Math.min(this.#skip, chunk.length - at)
        this.#skip -= step
        at += step
        continue
      }
      const byte = chunk[at++]
      if (byte === undefined) return
      this.#have.push(byte)
      if (this.#have.length === this.#need) this.#field()
    }
  }

  /** @throws FaasError `image/invalid` when the stream stops within a frame */
  end(): void {
    if (this.#state !== 'magic' || this.#have.length > 0 || this.#skip > 0) throw invalidImage('A zstd stream ends too early.')
  }

  #field(): void {
    const bytes = this.#have
    this.#have = []
    switch (this.#state) {
      case 'magic':
        return this.#magic(little(bytes))
      case 'skip-size':
        this.#skip = little(bytes)
        return this.#expect('magic', 4)
      case 'descriptor':
        return this.#frameDescriptor(bytes[0] ?? 0)
      case 'header':
        return this.#frameHeader(bytes)
      case 'block':
        return this.#block(little(bytes))
    }
  }

  #magic(value: number): void {
    if (value === MAGIC) return this.#expect('descriptor', 1)
    if (value >= 0x184d2a50 && value <= 0x184d2a5f) return this.#expect('skip-size', 4)
    throw invalidImage('A zstd stream has an unknown frame.')
  }

  #frameDescriptor(descriptor: number): void {
    this.#descriptor = descriptor
    this.#checksum = (descriptor & 4) !== 0
    const singleSegment = (descriptor & 0x20) !== 0
    const length = (singleSegment ? 0 : 1) + dictionaryBytes(descriptor) + sizeBytes(descriptor)
    // Never zero: without a window descriptor the content size takes at least one byte.
    this.#expect('header', length)
  }

  #frameHeader(bytes: readonly number[]): void {
    const singleSegment = (this.#descriptor & 0x20) !== 0
    let window: number
    if (singleSegment) {
      const size = bytes.slice(dictionaryBytes(this.#descriptor))
      window = little(size) + (size.length === 2 ? 256 : 0)
    } else {
      const descriptor = bytes[0] ?? 0
      const base = 2 ** (10 + (descriptor >> 3))
      window = base + (base / 8) * (descriptor & 7)
    }
    if (window > WINDOW_BYTES_MAX) throw invalidImage('A zstd stream wants a window of more than 128 MiB.')
    this.#expect('block', 3)
  }

  #block(header: number): void {
    const last = (header & 1) !== 0
    const type = (header >> 1) & 3
    if (type === 3) throw invalidImage('A zstd stream has a reserved block type.')
    this.#skip = type === 1 ? 1 : header >>> 3
    if (last && this.#checksum) this.#skip += 4
    if (last) this.#expect('magic', 4)
    else this.#expect('block', 3)
  }

  #expect(state: State, need: number): void {
    this.#state = state
    this.#need = need
  }
}

function little(bytes: readonly number[]): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0)
}

function dictionaryBytes(descriptor: number): number {
  return [0, 1, 2, 4][descriptor & 3] ?? 0
}

function sizeBytes(descriptor: number): number {
  const flag = descriptor >> 6
  if (flag === 0) return (descriptor & 0x20) !== 0 ? 1 : 0
  return 1 << flag
}
