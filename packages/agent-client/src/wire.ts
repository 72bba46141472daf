/**
 * Numbers and field encoding of the agent protocol; `docs/agent-protocol.md` is the specification.
 * Little endian throughout.
 */

export const PROTOCOL_VERSION = 1
export const HEADER_BYTES = 12
export const MAX_PAYLOAD_BYTES = 64 * 1024
/** A request may span frames up to this. */
export const MAX_REQUEST_BYTES = 8 * 1024 * 1024
/** The longest reply a guest may make us assemble. */
export const MAX_REPLY_BYTES = 1024 * 1024
export const FLAG_MORE = 1

export const KIND = {
  hello: 0x01, ready: 0x02, ping: 0x03, pong: 0x04, error: 0x05, ok: 0x06, shutdown: 0x07, cancel: 0x08, window: 0x09,
  exec: 0x10, started: 0x11, stdout: 0x12, stderr: 0x13, stdin: 0x14, stdinClose: 0x15, exit: 0x16, signal: 0x17,
  resize: 0x18, listExecs: 0x19, attach: 0x1a, attached: 0x1b, detach: 0x1c, forget: 0x1d, killAll: 0x1e,
  data: 0x20, dataEnd: 0x21, stat: 0x22, list: 0x23, mkdir: 0x24, remove: 0x25, move: 0x26, read: 0x27, write: 0x28,
  tarIn: 0x29, tarOut: 0x2a,
  quiesce: 0x30, resume: 0x31, reseed: 0x32,
} as const

/** Frames that carry raw bytes; they never span frames. */
export function isRawKind(kind: number): boolean {
  return kind === KIND.stdout || kind === KIND.stderr || kind === KIND.data
}

export interface Field {
  readonly tag: number
  readonly value: Uint8Array
}

/** Splits a payload into fields; null when it is malformed. */
export function decodeFields(payload: Uint8Array): Field[] | null {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength)
  const fields: Field[] = []
  let at = 0
  while (at < payload.length) {
    if (payload.length - at < 5) return null
    const length = view.getUint32(at + 1, true)
    const from = at + 5
    if (length > payload.length - from) return null
    fields.push({ tag: view.getUint8(at), value: payload.subarray(from, from + length) })
    at = from + length
  }
  return fields
}

/** The fields of one reply by tag. A missing or wrongly sized field makes `malformed` true instead of throwing. */
export class FieldMap {
  malformed = false
  readonly #fields = new Map<number, Uint8Array>()
  readonly #list: readonly Field[]

  constructor(payload: Uint8Array) {
    const fields = decodeFields(payload)
    if (fields === null) this.malformed = true
    this.#list = fields ?? []
    for (const field of this.#list) this.#fields.set(field.tag, field.value)
  }

  /** Every value of a repeated field. */
  all(tag: number): Uint8Array[] {
    return this.#list.filter((field) => field.tag === tag).map((field) => field.value)
  }

  bytes(tag: number): Uint8Array {
    const value = this.#fields.get(tag)
    if (value === undefined) this.malformed = true
    return value ?? new Uint8Array()
  }

  text(tag: number): string {
    return new TextDecoder().decode(this.bytes(tag))
  }

  u8(tag: number): number {
    return this.#view(tag, 1)?.getUint8(0) ?? 0
  }

  u16(tag: number): number {
    return this.#view(tag, 2)?.getUint16(0, true) ?? 0
  }

  u32(tag: number): number {
    return this.#view(tag, 4)?.getUint32(0, true) ?? 0
  }

  i32(tag: number): number {
    return this.#view(tag, 4)?.getInt32(0, true) ?? 0
  }

  u64(tag: number): bigint {
    return this.#view(tag, 8)?.getBigUint64(0, true) ?? 0n
  }

  i64(tag: number): bigint {
    return this.#view(tag, 8)?.getBigInt64(0, true) ?? 0n
  }

  /** A 64-bit count that must fit a number; larger ones are malformed. */
  count(tag: number): number {
    const value = this.u64(tag)
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      this.malformed = true
      return 0
    }
    return Number(value)
  }

  #view(tag: number, size: number): DataView | null {
    const value = this.bytes(tag)
    if (value.length !== size) {
      this.malformed = true
      return null
    }
    return new DataView(value.buffer, value.byteOffset, size)
  }
}

/** Builds a payload. */
export class FieldWriter {
  readonly #parts: Buffer[] = []

  bytes(tag: number, value: Uint8Array): this {
    const head = Buffer.allocUnsafe(5)
    head.writeUInt8(tag, 0)
    head.writeUInt32LE(value.length, 1)
    this.#parts.push(head, Buffer.from(value.buffer, value.byteOffset, value.length))
    return this
  }

  text(tag: number, value: string): this {
    const length = Buffer.byteLength(value)
    const part = Buffer.allocUnsafe(5 + length)
    part.writeUInt8(tag, 0)
    part.writeUInt32LE(length, 1)
    part.write(value, 5)
    this.#parts.push(part)
    return this
  }

  u8(tag: number, value: number): this {
    return this.bytes(tag, Uint8Array.of(value))
  }

  u16(tag: number, value: number): this {
    const body = Buffer.allocUnsafe(2)
    body.writeUInt16LE(value)
    return this.bytes(tag, body)
  }

  u32(tag: number, value: number): this {
    const body = Buffer.allocUnsafe(4)
    body.writeUInt32LE(value)
    return this.bytes(tag, body)
  }

  i32(tag: number, value: number): this {
    const body = Buffer.allocUnsafe(4)
    body.writeInt32LE(value)
    return this.bytes(tag, body)
  }

  u64(tag: number, value: bigint | number): this {
    const body = Buffer.allocUnsafe(8)
    body.writeBigUInt64LE(BigInt(value))
    return this.bytes(tag, body)
  }

  /** One copy of everything: requests are small, and one write beats many. */
  finish(): Buffer {
    return Buffer.concat(this.#parts)
  }
}

export function encodeHeader(into: Buffer, kind: number, stream: number, length: number, flags: number): void {
  into.writeUInt32LE(length, 0)
  into.writeUInt32LE(stream, 4)
  into.writeUInt8(kind, 8)
  into.writeUInt8(flags, 9)
  into.writeUInt16LE(0, 10)
}
