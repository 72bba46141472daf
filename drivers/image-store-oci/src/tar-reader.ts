/**
 * Reads the tar container of an image archive: regular files and links, ustar, PAX and GNU long names.
 * Layers do not come here: they are unpacked by the helper, which understands all of tar.
 */
import type { Bytes } from './decompress.js'
import { invalidImage } from './manifest.js'

export type TarEntry =
  | { readonly kind: 'file'; readonly name: string; readonly size: number; readonly data: Bytes }
  | { readonly kind: 'link'; readonly name: string; readonly target: string; readonly hard: boolean }
  | { readonly kind: 'other'; readonly name: string }

const BLOCK = 512
const META_BYTES_MAX = 1024 * 1024

/** Each entry's data must be read before the next entry is asked for; what is not read is skipped. */
export async function* readTar(source: Bytes): AsyncGenerator<TarEntry> {
  const reader = new ByteReader(source)
  try {
    let pax: ReadonlyMap<string, string> = new Map()
    let longName: string | undefined
    let longLink: string | undefined
    for (;;) {
      const header = await reader.exactly(BLOCK, 'or-end')
      if (header === undefined || header.every((byte) => byte === 0)) return
      checkSum(header)
      const type = String.fromCharCode(header[156] ?? 0)
      const size = pax.has('size') && !'xgLK'.includes(type) ? decimal(pax.get('size') ?? '') : number(header.subarray(124, 136))
      if ('xgLK'.includes(type)) {
        if (size > META_BYTES_MAX) throw invalidImage('A header of the archive is too large.')
        const meta = (await reader.exactly(size)) ?? new Uint8Array(0)
        await reader.skip(padding(size))
        if (type === 'x') pax = parsePax(meta)
        if (type === 'L') longName = field(meta)
        if (type === 'K') longLink = field(meta)
        continue
      }
      const name = pax.get('path') ?? longName ?? headerName(header)
      const target = pax.get('linkpath') ?? longLink ?? field(header.subarray(157, 257))
      pax = new Map()
      longName = longLink = undefined
      if (type === '1' || type === '2') {
        yield { kind: 'link', name, target, hard: type === '1' }
      } else if ((type === '0' || type === '\0' || type === '7') && !name.endsWith('/')) {
        const data = new EntryData(reader, size)
        yield { kind: 'file', name, size, data }
        await data.skipRest()
        await reader.skip(padding(size))
      } else if ('3456'.includes(type) || name.endsWith('/')) {
        yield { kind: 'other', name }
      } else {
        throw invalidImage('The archive has an entry of an unsupported type.')
      }
    }
  } finally {
    await reader.close()
  }
}

class EntryData implements Bytes {
  #left: number

  constructor(
    private readonly reader: ByteReader,
    size: number,
  ) {
    this.#left = size
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    while (this.#left > 0) {
      const chunk = await this.reader.some(this.#left)
      this.#left -= chunk.length
      yield chunk
    }
  }

  async skipRest(): Promise<void> {
    await this.reader.skip(this.#left)
    this.#left = 0
  }
}

/** Cuts a stream of chunks into the lengths that are asked for. */
class ByteReader {
  readonly #iterator: AsyncIterator<Uint8Array>
  #chunk: Uint8Array = new Uint8Array(0)

  constructor(source: Bytes) {
    this.#iterator = source[Symbol.asyncIterator]()
  }

  async exactly(length: number, atEnd?: 'or-end'): Promise<Uint8Array | undefined> {
    const parts: Uint8Array[] = []
    let have = 0
    while (have < length) {
      if (!(await this.#fill())) {
        if (have === 0 && atEnd !== undefined) return undefined
        throw truncated()
      }
      const part = this.#take(length - have)
      parts.push(part)
      have += part.length
    }
    return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts)
  }

  /** At least one byte, at most `max`. */
  async some(max: number): Promise<Uint8Array> {
    if (!(await this.#fill())) throw truncated()
    return this.#take(max)
  }

  async skip(length: number): Promise<void> {
    for (let left = length; left > 0; ) left -= (await this.some(left)).length
  }

  async close(): Promise<void> {
    await this.#iterator.return?.()
  }

  #take(max: number): Uint8Array {
    const part = this.#chunk.subarray(0, max)
    this.#chunk = this.#chunk.subarray(part.length)
    return part
  }

  async #fill(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      const next = await this.#iterator.next()
      if (next.done === true) return false
      this.#chunk = next.value
    }
    return true
  }
}

function truncated(): Error {
  return invalidImage('The archive ends in the middle.')
}

function padding(size: number): number {
  return (BLOCK - (size % BLOCK)) % BLOCK
}

function field(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8')
}

function headerName(header: Uint8Array): string {
  const name = field(header.subarray(0, 100))
  const isUstar = field(header.subarray(257, 263)) === 'ustar' && header[262] === 0
  const prefix = isUstar ? field(header.subarray(345, 500)) : ''
  return prefix === '' ? name : `${prefix}/${name}`
}

function checkSum(header: Uint8Array): void {
  let sum = 0
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : (header[i] ?? 0)
  if (sum !== number(header.subarray(148, 156))) throw invalidImage('The archive is not a tar file, or it is damaged.')
}

function number(bytes: Uint8Array): number {
  const [first = 0] = bytes
  const value = (first & 0x80) === 0 ? octal(field(bytes).trim()) : bytes.reduce((sum, byte, i) => sum * 256 + (i === 0 ? byte & 0x7f : byte), 0)
  if (!Number.isSafeInteger(value)) throw invalidImage('A header of the archive has a malformed number.')
  return value
}

function octal(text: string): number {
  if (text === '') return 0
  return /^[0-7]+$/.test(text) ? parseInt(text, 8) : NaN
}

function decimal(text: string): number {
  const value = /^[0-9]+$/.test(text) ? Number(text) : NaN
  if (!Number.isSafeInteger(value)) throw invalidImage('A header of the archive has a malformed number.')
  return value
}

function parsePax(bytes: Uint8Array): ReadonlyMap<string, string> {
  const records = new Map<string, string>()
  const buffer = Buffer.from(bytes)
  for (let at = 0; at < buffer.length; ) {
    const space = buffer.indexOf(0x20, at)
    const length = space < 0 ? NaN : decimal(buffer.toString('latin1', at, space))
    const end = at + length
    if (!(end <= buffer.length) || end <= space + 1 || buffer[end - 1] !== 0x0a) throw invalidImage('A header of the archive is malformed.')
    const record = buffer.toString('utf8', space + 1, end - 1)
    const eq = record.indexOf('=')
    if (eq < 1) throw invalidImage('A header of the archive is malformed.')
    records.set(record.slice(0, eq), record.slice(eq + 1))
    at = end
  }
  return records
}
