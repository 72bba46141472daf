/**
 * A small tar codec for tests: ustar with PAX records for long names, big sizes and unicode.
 * @see POSIX.1-2017 pax, "ustar Interchange Format"
 */
import { FaasError } from '@faas-platform/core'
import { concatBytes, text, utf8 } from './bytes.js'

export type TarType = 'file' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'

export interface TarEntry {
  readonly path: string
  readonly type: TarType
  /** Permission bits. Default 0o644 for files, 0o755 for directories. */
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtimeMs?: number
  readonly data?: Uint8Array
  readonly linkTarget?: string
}

const BLOCK = 512
const TYPE_FLAGS: Readonly<Record<TarType, string>> = { file: '0', hardlink: '1', symlink: '2', char: '3', block: '4', dir: '5', fifo: '6' }
const FLAG_TYPES: Readonly<Record<string, TarType>> = { '\0': 'file', '0': 'file', '7': 'file', '1': 'hardlink', '2': 'symlink', '3': 'char', '4': 'block', '5': 'dir', '6': 'fifo' }

export function packTar(entries: Iterable<TarEntry>): Uint8Array {
  const parts: Uint8Array[] = []
  for (const entry of entries) parts.push(...packEntry(entry))
  parts.push(new Uint8Array(2 * BLOCK))
  return concatBytes(parts)
}

export async function* packTarStream(entries: Iterable<TarEntry>): AsyncGenerator<Uint8Array> {
  for (const entry of entries) yield* packEntry(entry)
  yield new Uint8Array(2 * BLOCK)
}

/** @throws FaasError `sandbox/file-error` when the bytes are not a whole tar archive. */
export function unpackTar(bytes: Uint8Array): TarEntry[] {
  const entries: TarEntry[] = []
  let pax: Record<string, string> = {}
  let longName: string | undefined
  let longLink: string | undefined
  for (let offset = 0; offset + BLOCK <= bytes.length; ) {
    const header = bytes.subarray(offset, offset + BLOCK)
    offset += BLOCK
    if (header.every((byte) => byte === 0)) break
    checkSum(header)
    const size = pax['size'] === undefined ? readNumber(header, 124, 12) : Number(pax['size'])
    const data = bytes.subarray(offset, offset + size)
    if (data.length < size) throw malformed('The archive ends inside an entry.')
    offset += Math.ceil(size / BLOCK) * BLOCK
    const flag = String.fromCharCode(header[156] ?? 0)
    if (flag === 'x') pax = { ...pax, ...parsePax(data) }
    else if (flag === 'L') longName = cString(data)
    else if (flag === 'K') longLink = cString(data)
    else if (flag !== 'g') {
      const type = FLAG_TYPES[flag]
      if (type === undefined) throw malformed(`The entry type ${JSON.stringify(flag)} is not known.`)
      const prefix = text(header.subarray(257, 262)) === 'ustar' ? cString(header.subarray(345, 500)) : ''
      const name = cString(header.subarray(0, 100))
      const link = pax['linkpath'] ?? longLink ?? cString(header.subarray(157, 257))
      entries.push({
        path: pax['path'] ?? longName ?? (prefix === '' ? name : `${prefix}/${name}`),
        type,
        mode: readNumber(header, 100, 8) & 0o7777,
        uid: pax['uid'] === undefined ? readNumber(header, 108, 8) : Number(pax['uid']),
        gid: pax['gid'] === undefined ? readNumber(header, 116, 8) : Number(pax['gid']),
        mtimeMs: (pax['mtime'] === undefined ? readNumber(header, 136, 12) : Number(pax['mtime'])) * 1000,
        ...(type === 'file' ? { data: data.slice() } : {}),
        ...(link === '' ? {} : { linkTarget: link }),
      })
      pax = {}
      longName = undefined
      longLink = undefined
    }
  }
  return entries
}

function packEntry(entry: TarEntry): Uint8Array[] {
  const data = entry.data ?? new Uint8Array(0)
  const path = entry.type === 'dir' && !entry.path.endsWith('/') ? `${entry.path}/` : entry.path
  const records: [string, string][] = []
  if (utf8(path).length > 100 || !isAscii(path)) records.push(['path', path])
  const link = entry.linkTarget ?? ''
  if (utf8(link).length > 100 || !isAscii(link)) records.push(['linkpath', link])
  const parts: Uint8Array[] = []
  if (records.length > 0) {
    const body = utf8(records.map(([key, value]) => paxRecord(key, value)).join(''))
    parts.push(header('PaxHeader', 'x', body.length, {}), body, padding(body.length))
  }
  parts.push(header(path, TYPE_FLAGS[entry.type], data.length, entry), data, padding(data.length))
  return parts
}

function header(path: string, flag: string, size: number, entry: Partial<TarEntry>): Uint8Array {
  const block = new Uint8Array(BLOCK)
  const put = (offset: number, length: number, value: Uint8Array): void => block.set(value.subarray(0, length), offset)
  const octal = (offset: number, length: number, value: number): void => put(offset, length, utf8(`${value.toString(8).padStart(length - 1, '0')}\0`))
  put(0, 100, utf8(path))
  octal(100, 8, entry.mode ?? (flag === '5' ? 0o755 : 0o644))
  octal(108, 8, entry.uid ?? 0)
  octal(116, 8, entry.gid ?? 0)
  octal(124, 12, size)
  octal(136, 12, Math.floor((entry.mtimeMs ?? 0) / 1000))
  block.fill(0x20, 148, 156)
  put(156, 1, utf8(flag))
  put(157, 100, utf8(entry.linkTarget ?? ''))
  put(257, 8, utf8('ustar\x0000'))
  const sum = block.reduce((total, byte) => total + byte, 0)
  put(148, 8, utf8(`${sum.toString(8).padStart(6, '0')}\0 `))
  return block
}

function checkSum(block: Uint8Array): void {
  let sum = 0
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : (block[i] ?? 0)
  if (sum !== readNumber(block, 148, 8)) throw malformed('The checksum of a header is wrong.')
}

function readNumber(block: Uint8Array, offset: number, length: number): number {
  const field = block.subarray(offset, offset + length)
  // GNU base-256 for what octal digits can not hold.
  if (((field[0] ?? 0) & 0x80) !== 0) return field.subarray(1).reduce((value, byte) => value * 256 + byte, 0)
  const digits = cString(field).trim()
  const value = digits === '' ? 0 : Number.parseInt(digits, 8)
  if (Number.isNaN(value)) throw malformed('A number of a header is not octal.')
  return value
}

function paxRecord(key: string, value: string): string {
  const rest = ` ${key}=${value}\n`
  const restLength = utf8(rest).length
  let length = restLength + 1
  while (String(length).length + restLength !== length) length = String(length).length + restLength
  return `${length}${rest}`
}

function parsePax(data: Uint8Array): Record<string, string> {
  const found: Record<string, string> = {}
  for (let offset = 0; offset < data.length; ) {
    const space = data.indexOf(0x20, offset)
    const length = Number(text(data.subarray(offset, space)))
    if (space < 0 || !Number.isInteger(length) || length <= 0) throw malformed('A PAX record is malformed.')
    const record = text(data.subarray(space + 1, offset + length - 1))
    const equals = record.indexOf('=')
    found[record.slice(0, equals)] = record.slice(equals + 1)
    offset += length
  }
  return found
}

const cString = (bytes: Uint8Array): string => {
  const end = bytes.indexOf(0)
  return text(end < 0 ? bytes : bytes.subarray(0, end))
}
const isAscii = (value: string): boolean => /^[\x20-\x7e]*$/.test(value)
const padding = (size: number): Uint8Array => new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK)
const malformed = (message: string): FaasError => new FaasError('sandbox/file-error', { message, details: { reason: 'bad-archive' } })
