/**
 * A deterministic tar: entries sorted by path, owner root, mtime 0, so that
 * the same content always has the same digest on every machine.
 * @see POSIX.1-2017 pax, "ustar Interchange Format"; GNU long names are avoided in favour of pax records
 */
import { createReadStream, lstatSync, readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

const BLOCK = 512
const TYPE = { file: '0', symlink: '2', directory: '5' }

/**
 * @typedef {{ path: string, type: 'directory', mode: number }} DirectoryEntry
 * @typedef {{ path: string, type: 'symlink', target: string }} SymlinkEntry
 * @typedef {{ path: string, type: 'file', mode: number, content?: Buffer | string, source?: string }} FileEntry
 *   `source` is a file on disk, streamed; `content` is given in memory.
 * @typedef {DirectoryEntry | SymlinkEntry | FileEntry} TarEntry
 */

/**
 * Adds missing parent directories, removes doubles (the last wins) and sorts.
 * @param {Iterable<TarEntry>} entries @returns {TarEntry[]}
 */
export function normalizeEntries(entries) {
  const byPath = new Map()
  for (const entry of entries) byPath.set(entry.path, entry)
  for (const path of [...byPath.keys()]) {
    for (let slash = path.lastIndexOf('/'); slash > 0; slash = path.lastIndexOf('/', slash - 1)) {
      const parent = path.slice(0, slash)
      if (!byPath.has(parent)) byPath.set(parent, { path: parent, type: 'directory', mode: 0o755 })
    }
  }
  return [...byPath.values()].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
}

/**
 * @param {readonly TarEntry[]} entries Already normalized.
 * @returns {AsyncGenerator<Buffer>}
 */
export async function* tarStream(entries) {
  for (const entry of entries) {
    const size = entry.type === 'file' ? contentSize(entry) : 0
    yield* headers(entry, size)
    if (entry.type !== 'file' || size === 0) continue
    if (entry.content !== undefined) yield Buffer.from(entry.content)
    else yield* createReadStream(entry.source)
    yield Buffer.alloc((BLOCK - (size % BLOCK)) % BLOCK)
  }
  yield Buffer.alloc(2 * BLOCK)
}

/** Entries for everything below `dir`, with the paths they have inside it. Devices and sockets are refused. */
export function* entriesFromDirectory(dir, below = '') {
  for (const name of readdirSync(join(dir, below)).sort()) {
    const path = below === '' ? name : `${below}/${name}`
    const file = join(dir, path)
    const stat = lstatSync(file)
    const mode = stat.mode & 0o7777
    if (stat.isSymbolicLink()) yield { path, type: 'symlink', target: readlinkSync(file) }
    else if (stat.isDirectory()) {
      yield { path, type: 'directory', mode }
      yield* entriesFromDirectory(dir, path)
    } else if (stat.isFile()) yield { path, type: 'file', mode, source: file }
    else throw new Error(`${file} is neither a file, a directory nor a symbolic link`)
  }
}

function contentSize(entry) {
  return entry.content !== undefined ? Buffer.byteLength(entry.content) : lstatSync(entry.source).size
}

function* headers(entry, size) {
  const path = entry.type === 'directory' ? `${entry.path}/` : entry.path
  const target = entry.type === 'symlink' ? entry.target : ''
  const pax = []
  if (Buffer.byteLength(path) > 100) pax.push(paxRecord('path', path))
  if (Buffer.byteLength(target) > 100) pax.push(paxRecord('linkpath', target))
  if (pax.length > 0) {
    const body = Buffer.from(pax.join(''))
    yield header({ path: 'pax', mode: 0o644, size: body.length, type: 'x', target: '' })
    yield body
    yield Buffer.alloc((BLOCK - (body.length % BLOCK)) % BLOCK)
  }
  const mode = entry.type === 'symlink' ? 0o777 : entry.mode
  yield header({ path, mode, size, type: TYPE[entry.type], target })
}

function header({ path, mode, size, type, target }) {
  const block = Buffer.alloc(BLOCK)
  const octal = (value, offset, length) => block.write(value.toString(8).padStart(length - 1, '0') + '\0', offset, 'ascii')
  block.write(path.slice(0, 100), 0, 100, 'utf8')
  octal(mode, 100, 8)
  octal(0, 108, 8) // uid
  octal(0, 116, 8) // gid
  octal(size, 124, 12)
  octal(0, 136, 12) // mtime
  block.write(' '.repeat(8), 148, 'ascii')
  block.write(type, 156, 'ascii')
  block.write(target.slice(0, 100), 157, 100, 'utf8')
  block.write('ustar\x0000', 257, 'latin1')
  block.write('root', 265, 'ascii')
  block.write('root', 297, 'ascii')
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(sum.toString(8).padStart(6, '0') + '\0 ', 148, 'ascii')
  return block
}

/** "LENGTH key=value\n", where LENGTH counts itself. */
function paxRecord(key, value) {
  const rest = ` ${key}=${value}\n`
  let length = Buffer.byteLength(rest)
  while (Buffer.byteLength(`${length}${rest}`) !== length) length = Buffer.byteLength(`${length}${rest}`)
  return `${length}${rest}`
}
