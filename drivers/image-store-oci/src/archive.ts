/**
 * The files of an image archive, be it a directory or a tar(.gz, .zst), by name.
 *
 * A tar is taken apart in one pass into numbered files; names from it never become paths on the host, and links
 * inside it are followed in memory only.
 */
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, stat } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { FaasError } from '@faas-platform/core'
import { decompress, type Bytes } from './decompress.js'
import { isMissing, storeFailure } from './failures.js'
import { invalidImage } from './manifest.js'
import { readTar } from './tar-reader.js'

export interface Archive {
  has(name: string): Promise<boolean>
  size(name: string): Promise<number>
  stream(name: string, signal: AbortSignal): Bytes
  /** @throws FaasError `image/invalid` when it is missing or larger than `bytesMax` */
  read(name: string, bytesMax: number): Promise<Uint8Array>
}

export interface ArchiveLimits {
  readonly archiveBytesMax: number
  readonly archiveEntriesMax: number
}

const LINKS_MAX = 16

/** @throws FaasError `image/not-found` when there is no such path; `image/invalid`, `image/too-large`, `store/unavailable` */
export async function openArchive(path: string, options: { readonly temporaryDir: string; readonly limits: ArchiveLimits; readonly signal: AbortSignal }): Promise<Archive> {
  let isDirectory: boolean
  try {
    isDirectory = (await stat(path)).isDirectory()
  } catch (cause) {
    throw new FaasError('image/not-found', { message: 'There is no image archive at this path.', details: { path }, cause })
  }
  if (isDirectory) return new FileArchive((name) => join(path, name))
  const files = await extract(createReadStream(path, { highWaterMark: 256 * 1024, signal: options.signal }), options)
  return new FileArchive((name) => files.get(name))
}

class FileArchive implements Archive {
  constructor(private readonly locate: (name: string) => string | undefined) {}

  async has(name: string): Promise<boolean> {
    const path = this.locate(name)
    if (path === undefined) return false
    try {
      return (await stat(path)).isFile()
    } catch (error) {
      if (isMissing(error)) return false
      throw storeFailure(error, 'reading an archive')
    }
  }

  async size(name: string): Promise<number> {
    try {
      return (await stat(this.#path(name))).size
    } catch (error) {
      throw isMissing(error) ? absent(name) : storeFailure(error, 'reading an archive')
    }
  }

  stream(name: string, signal: AbortSignal): Bytes {
    return createReadStream(this.#path(name), { highWaterMark: 256 * 1024, signal })
  }

  async read(name: string, bytesMax: number): Promise<Uint8Array> {
    if ((await this.size(name)) > bytesMax) throw invalidImage(`The archive's file ${name} is larger than ${bytesMax} bytes.`)
    return readFile(this.#path(name))
  }

  #path(name: string): string {
    const path = this.locate(name)
    if (path === undefined) throw absent(name)
    return path
  }
}

function absent(name: string): FaasError {
  return invalidImage(`The archive lacks the file ${name}.`)
}

async function extract(source: Bytes, { temporaryDir, limits, signal }: { readonly temporaryDir: string; readonly limits: ArchiveLimits; readonly signal: AbortSignal }): Promise<ReadonlyMap<string, string>> {
  const dir = join(temporaryDir, 'archive')
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const files = new Map<string, string>()
  const links = new Map<string, string>()
  let entries = 0
  let total = 0
  for await (const entry of readTar(decompress(source, signal))) {
    signal.throwIfAborted()
    if (++entries > limits.archiveEntriesMax) throw new FaasError('image/too-large', { message: `The archive has more than ${limits.archiveEntriesMax} entries.` })
    const name = normalise(entry.name)
    if (entry.kind === 'link') links.set(name, entry.hard ? normalise(entry.target) : posix.join(posix.dirname(name), entry.target))
    if (entry.kind !== 'file') continue
    const path = join(dir, String(entries))
    try {
      const file = await open(path, 'wx', 0o600)
      try {
        for await (const chunk of entry.data) {
          total += chunk.length
          if (total > limits.archiveBytesMax) throw new FaasError('image/too-large', { message: `The archive holds more than the allowed ${limits.archiveBytesMax} bytes.` })
          for (let done = 0; done < chunk.length; ) done += (await file.write(chunk, done)).bytesWritten
        }
      } finally {
        await file.close()
      }
    } catch (error) {
      throw storeFailure(error, 'reading an archive')
    }
    files.set(name, path)
  }
  for (const name of links.keys()) {
    const path = follow(name, files, links)
    if (path !== undefined && !files.has(name)) files.set(name, path)
  }
  return files
}

function follow(name: string, files: ReadonlyMap<string, string>, links: ReadonlyMap<string, string>): string | undefined {
  for (let steps = 0; steps < LINKS_MAX; steps++) {
    const path = files.get(name)
    if (path !== undefined) return path
    const next = links.get(name)
    if (next === undefined) return undefined
    name = next
  }
  return undefined
}

function normalise(name: string): string {
  return posix.normalize(name).replace(/^\/+/, '').replace(/^\.\//, '').replace(/\/+$/, '')
}
