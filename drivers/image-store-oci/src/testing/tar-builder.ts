/** Writes tar streams byte by byte, honest ones and hostile ones that no tar program would write. */
export interface TarMember {
  readonly name: string
  /** ustar type flag. Default `0`. */
  readonly type?: string
  readonly data?: Uint8Array | string
  readonly link?: string
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
  /** Overrides what the header says of the size. */
  readonly size?: number
  /** Device numbers. */
  readonly device?: readonly [number, number]
  /** PAX records written in front. */
  readonly pax?: Readonly<Record<string, string | Uint8Array>>
  /** GNU header instead of ustar, with raw bytes from offset 345 on. */
  readonly gnuTail?: Uint8Array
}

const BLOCK = 512

export function tar(members: readonly TarMember[], end: 'end' | 'no-end' = 'end'): Buffer {
  const parts = members.flatMap(memberBlocks)
  return Buffer.concat(end === 'end' ? [...parts, Buffer.alloc(2 * BLOCK)] : parts)
}

function memberBlocks(member: TarMember): Buffer[] {
  const blocks: Buffer[] = []
  const pax = { ...(Buffer.byteLength(member.name) > 100 && { path: member.name }), ...((member.link ?? '').length > 100 && { linkpath: member.link ?? '' }), ...member.pax }
  if (Object.keys(pax).length > 0) {
    const records = Buffer.concat(Object.entries(pax).map(([key, value]) => paxRecord(key, Buffer.from(value))))
    blocks.push(header({ name: 'PaxHeader', type: 'x' }, records.length), ...padded(records))
  }
  const data = Buffer.from(member.data ?? '')
  blocks.push(header(member, member.size ?? data.length), ...padded(data))
  return blocks
}

export function paxRecord(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')])
  let length = rest.length + 1
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length
  return Buffer.concat([Buffer.from(String(length)), rest])
}

function header(member: TarMember, size: number): Buffer {
  const block = Buffer.alloc(BLOCK)
  block.write(member.name, 0, 100)
  block.write(octal(member.mode ?? 0o644, 7), 100)
  block.write(octal(member.uid ?? 0, 7), 108)
  block.write(octal(member.gid ?? 0, 7), 116)
  if (size < 8 ** 11) block.write(octal(size, 11), 124)
  else {
    block[124] = 0x80
    block.writeBigUInt64BE(BigInt(size), 128)
  }
  block.write(octal(member.mtime ?? 0, 11), 136)
  block.write(member.type ?? '0', 156)
  block.write(member.link ?? '', 157, 100)
  if (member.gnuTail === undefined) {
    block.write('ustar\x0000', 257, 'latin1')
    const [major, minor] = member.device ?? [0, 0]
    block.write(octal(major, 7), 329)
    block.write(octal(minor, 7), 337)
  } else {
    block.write('ustar  \0', 257, 'latin1')
    Buffer.from(member.gnuTail).copy(block, 345)
  }
  block.write('        ', 148)
  block.write(`${octal(block.reduce((sum, byte) => sum + byte, 0), 6)}\0 `, 148, 'latin1')
  return block
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0')
}

function padded(data: Buffer): Buffer[] {
  return data.length === 0 ? [] : [data, Buffer.alloc((BLOCK - (data.length % BLOCK)) % BLOCK)]
}
