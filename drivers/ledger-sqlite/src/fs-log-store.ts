/**
 * Full logs as files, one per execution, in 256 sub-directories so that a directory stays small.
 *
 * I1. A reader never sees half an entry: what a killed process left unfinished at the end is not shown.
 * I2. File names are made of ids that this class checks; nothing else reaches the file system.
 */
import { mkdir, open, readdir, rm, stat, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import { asId, FaasError, type ExecutionId, type LogEntry, type LogReader, type LogStore, type LogWriter } from '@faas-platform/core'
import { decodeEntries, encodeEntry, FILE_HEADER } from './log-frames.js'

const READ_BYTES = 256 * 1024
const SAFE_ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$/

export class FsLogStore implements LogStore {
  readonly #dir: string

  constructor({ dir }: { readonly dir: string }) {
    this.#dir = dir
  }

  async create(id: ExecutionId): Promise<LogWriter> {
    const path = this.#path(id)
    return translated(async () => {
      await mkdir(join(path, '..'), { recursive: true, mode: 0o700 })
      const file = await open(path, 'w', 0o600)
      await file.write(FILE_HEADER)
      return new FsLogWriter(file)
    })
  }

  async open(id: ExecutionId, fromSeq: number): Promise<LogReader | null> {
    const path = this.#path(id)
    return translated(async () => {
      let file: FileHandle
      try {
        file = await open(path, 'r')
      } catch (error) {
        if (errnoOf(error) === 'ENOENT') return null
        throw error
      }
      return new FsLogReader(file, fromSeq)
    })
  }

  async remove(ids: readonly ExecutionId[]): Promise<void> {
    await translated(async () => {
      for (const id of ids) await rm(this.#path(id), { force: true })
    })
  }

  async prune(bytesMax: number, keep: ReadonlySet<ExecutionId>): Promise<number> {
    return translated(async () => {
      const files = await this.#files()
      let bytes = files.reduce((sum, file) => sum + file.bytes, 0)
      let removed = 0
      for (const file of files.sort((a, b) => a.changedMs - b.changedMs)) {
        if (bytes <= bytesMax) break
        if (keep.has(file.id)) continue
        await rm(file.path, { force: true })
        bytes -= file.bytes
        removed++
      }
      return removed
    })
  }

  #path(id: string): string {
    if (!SAFE_ID.test(id)) throw new FaasError('internal/bug', { message: 'An execution id is not fit for a file name.' }) // I2
    return join(this.#dir, id.slice(-2), `${id}.log`)
  }

  async #files(): Promise<{ readonly id: ExecutionId; readonly path: string; readonly bytes: number; readonly changedMs: number }[]> {
    const files = []
    for (const shard of await listOrNothing(this.#dir)) {
      for (const name of await listOrNothing(join(this.#dir, shard))) {
        const path = join(this.#dir, shard, name)
        const { size, mtimeMs } = await stat(path)
        files.push({ id: asId<ExecutionId>(name.replace(/\.log$/, '')), path, bytes: size, changedMs: mtimeMs })
      }
    }
    return files
  }
}

class FsLogWriter implements LogWriter {
  constructor(private readonly file: FileHandle) {}

  append(entries: readonly LogEntry[]): Promise<void> {
    return translated(async () => {
      const parts = entries.flatMap(encodeEntry)
      let left = parts.reduce((sum, part) => sum + part.length, 0)
      // A group of entries goes out in one call; what a full disk cuts short is an error, not half a log.
      for (let at = 0; at < parts.length; at += IOV_MAX) {
        const { bytesWritten } = await this.file.writev(parts.slice(at, at + IOV_MAX))
        left -= bytesWritten
      }
      if (left !== 0) throw new FaasError('store/unavailable', { message: 'The log could not be written whole: the disk is full.' })
    })
  }

  close(): Promise<void> {
    return translated(() => this.file.close())
  }
}

/** What one `writev` may take (POSIX `IOV_MAX` on Linux). */
const IOV_MAX = 1024

class FsLogReader implements LogReader {
  #offset = FILE_HEADER.length
  #rest: Buffer = Buffer.alloc(0)
  #checked = false

  constructor(private readonly file: FileHandle, private readonly fromSeq: number) {}

  read(): Promise<readonly LogEntry[]> {
    return translated(async () => {
      await this.#checkHeader()
      let wanted = READ_BYTES
      for (;;) {
        const buffer = Buffer.allocUnsafe(wanted)
        const { bytesRead } = await this.file.read(buffer, 0, wanted, this.#offset)
        if (bytesRead === 0) return []
        this.#offset += bytesRead
        const data = Buffer.concat([this.#rest, buffer.subarray(0, bytesRead)])
        const { entries, used, missing } = decodeEntries(data)
        this.#rest = data.subarray(used) // I1
        const fresh = entries.filter((entry) => entry.seq >= this.fromSeq)
        if (fresh.length > 0) return fresh
        wanted = Math.max(READ_BYTES, missing)
      }
    })
  }

  close(): Promise<void> {
    return translated(() => this.file.close())
  }

  async #checkHeader(): Promise<void> {
    if (this.#checked) return
    const header = Buffer.alloc(FILE_HEADER.length)
    const { bytesRead } = await this.file.read(header, 0, header.length, 0)
    if (bytesRead > 0 && !header.equals(FILE_HEADER)) throw new FaasError('store/corrupt', { message: 'The log of this execution is damaged.' })
    this.#checked = bytesRead === header.length
  }
}

async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof FaasError) throw error
    const full = errnoOf(error) === 'ENOSPC' || errnoOf(error) === 'EDQUOT'
    throw new FaasError('store/unavailable', { message: full ? 'The disk of the data directory is full.' : 'A log can not be written or read at the moment.', details: { errno: errnoOf(error) }, cause: error })
  }
}

async function listOrNothing(dir: string): Promise<readonly string[]> {
  try {
    return await readdir(dir)
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR') return []
    throw error
  }
}

function errnoOf(error: unknown): string {
  return typeof error === 'object' && error !== null && 'code' in error && typeof error.code === 'string' ? error.code : 'unknown'
}
