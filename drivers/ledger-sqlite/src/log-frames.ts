/**
 * The file form of an execution's log: a header, then one frame per entry.
 *
 *     file   = "FAASLOG1" frame*
 *     frame  = bodyLength:u32 type:u8 seq:u32 atMs:f64 body      (little endian; 17 bytes of header)
 *     type   = 0 state (body: its name) | 1 stdout | 2 stderr
 */
import { FaasError, type ExecutionState, type LogEntry } from '@faas-platform/core'

export const FILE_HEADER = Buffer.from('FAASLOG1')
export const FRAME_HEADER_BYTES = 17
/** One entry is one chunk of output, at most what the agent sends at once; more means a damaged file. */
const BODY_BYTES_MAX = 64 * 1024 * 1024

const TYPES = ['state', 'stdout', 'stderr'] as const

export function encodeEntry(entry: LogEntry): readonly [Buffer, Uint8Array] {
  const body = entry.type === 'state' ? Buffer.from(entry.state) : entry.bytes
  const header = Buffer.allocUnsafe(FRAME_HEADER_BYTES)
  header.writeUInt32LE(body.length, 0)
  header.writeUInt8(TYPES.indexOf(entry.type), 4)
  header.writeUInt32LE(entry.seq, 5)
  header.writeDoubleLE(entry.atMs, 9)
  return [header, body]
}

/** Decodes whole frames; `used` is where the first unfinished one begins. @throws FaasError `store/corrupt` */
export function decodeEntries(data: Buffer): { readonly entries: readonly LogEntry[]; readonly used: number; readonly missing: number } {
  const entries: LogEntry[] = []
  let at = 0
  let missing = 0
  while (at + FRAME_HEADER_BYTES <= data.length) {
    const length = data.readUInt32LE(at)
    const type = TYPES[data.readUInt8(at + 4)]
    if (type === undefined || length > BODY_BYTES_MAX) throw new FaasError('store/corrupt', { message: 'The log of this execution is damaged.' })
    const end = at + FRAME_HEADER_BYTES + length
    if (end > data.length) {
      missing = end - data.length
      break
    }
    const seq = data.readUInt32LE(at + 5)
    const atMs = data.readDoubleLE(at + 9)
    const body = data.subarray(at + FRAME_HEADER_BYTES, end)
    entries.push(type === 'state' ? { seq, atMs, type, state: body.toString() as ExecutionState } : { seq, atMs, type, bytes: new Uint8Array(body) })
    at = end
  }
  return { entries, used: at, missing }
}
