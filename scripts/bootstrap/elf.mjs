/**
 * The few ELF facts the bootstrap needs: is this a 64-bit ELF file, and does
 * it name a dynamic loader?
 * @see elf(5)
 */
import { closeSync, openSync, readSync } from 'node:fs'

const PT_INTERP = 3

/**
 * @param {string} file
 * @returns {{ interpreter?: string } | undefined} undefined when the file is not 64-bit little-endian ELF.
 */
export function readElf(file) {
  const fd = openSync(file, 'r')
  try {
    const header = readAt(fd, 0, 64)
    if (header.length < 64 || header.readUInt32BE(0) !== 0x7f454c46 || header[4] !== 2 || header[5] !== 1) return undefined
    const offset = Number(header.readBigUInt64LE(32))
    const size = header.readUInt16LE(54)
    const count = header.readUInt16LE(56)
    for (let index = 0; index < count; index += 1) {
      const entry = readAt(fd, offset + index * size, size)
      if (entry.readUInt32LE(0) !== PT_INTERP) continue
      const start = Number(entry.readBigUInt64LE(8))
      const length = Number(entry.readBigUInt64LE(32))
      return { interpreter: readAt(fd, start, length).toString('utf8').replace(/\0+$/, '') }
    }
    return {}
  } finally {
    closeSync(fd)
  }
}

function readAt(fd, position, length) {
  const buffer = Buffer.alloc(length)
  return buffer.subarray(0, readSync(fd, buffer, 0, length, position))
}
