/** What a guest says of a file, checked. */
import { FieldMap } from './wire.js'

const KINDS = {
  f: 'file', d: 'directory', l: 'symlink', p: 'fifo', s: 'socket', c: 'char-device', b: 'block-device',
} as const

export interface FileEntry {
  readonly name: string
  readonly kind: (typeof KINDS)[keyof typeof KINDS]
  /** Permission bits with set-id and sticky. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly sizeBytes: number
  readonly mtimeMs: number
  /** Of a symlink. */
  readonly target?: string
}

/** Null when malformed. */
export function decodeFileEntry(payload: Uint8Array): FileEntry | null {
  const fields = new FieldMap(payload)
  return fileEntryOf(fields)
}

export function fileEntryOf(fields: FieldMap): FileEntry | null {
  const letter = String.fromCharCode(fields.u8(2))
  const kind = letter in KINDS ? KINDS[letter as keyof typeof KINDS] : undefined
  const target = fields.text(8)
  const entry: FileEntry = {
    name: fields.text(1),
    kind: kind ?? 'file',
    mode: fields.u32(3),
    uid: fields.u32(4),
    gid: fields.u32(5),
    sizeBytes: fields.count(6),
    mtimeMs: Number(fields.i64(7) / 1_000_000n),
    ...(kind === 'symlink' ? { target } : {}),
  }
  return fields.malformed || kind === undefined ? null : entry
}

/** Longest listed entry: a name, a link target and the fixed fields. */
const ENTRY_BYTES_MAX = 16 * 1024

/** Cuts LIST's data (a length, then fields, again and again) into entries. */
export class EntryDecoder {
  #rest: Buffer = Buffer.alloc(0)

  /** Null when the guest broke the format. */
  push(chunk: Uint8Array): FileEntry[] | null {
    this.#rest = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk])
    const entries: FileEntry[] = []
    while (this.#rest.length >= 4) {
      const length = this.#rest.readUInt32LE(0)
      if (length > ENTRY_BYTES_MAX) return null
      if (this.#rest.length < 4 + length) break
      const entry = decodeFileEntry(this.#rest.subarray(4, 4 + length))
      if (entry === null) return null
      entries.push(entry)
      this.#rest = this.#rest.subarray(4 + length)
    }
    return entries
  }

  get isComplete(): boolean {
    return this.#rest.length === 0
  }
}
