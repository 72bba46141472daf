/**
 * Which references lead to which images: one small file, replaced as a whole.
 *
 * I1. A reader sees the file before or after a change, never in between (write, fsync, rename).
 * I2. Changes are made under the exclusive `state` lock, on what the file holds at that moment.
 * I3. An image is in the file only after all its blobs and layers are in place.
 */
import { readFileSync, statSync } from 'node:fs'
import { open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { FaasError, isImageDigest, type ImageConfig, type ImageDigest } from '@faas-platform/core'
import { isMissing, storeFailure } from './failures.js'
import type { DirectoryLocks } from './locks.js'

export interface ReferenceRecord {
  readonly digest: ImageDigest
  readonly createdAtMs: number
  readonly standIn: boolean
}

export interface LayerRecord {
  /** Of the blob as transferred. */
  readonly digest: ImageDigest
  readonly diffId: ImageDigest
}

export interface ImageRecord {
  readonly configDigest: ImageDigest
  readonly config: ImageConfig
  /** Lowest first. */
  readonly layers: readonly LayerRecord[]
  /** Bytes of the files in all layers. */
  readonly sizeBytes: number
}

export interface StoreState {
  readonly references: Readonly<Record<string, ReferenceRecord>>
  readonly images: Readonly<Record<string, ImageRecord>>
}

const FORMAT = 1
const EMPTY: StoreState = { references: {}, images: {} }

export class StateFile {
  #cached: { readonly identity: string; readonly state: StoreState } | undefined
  #writes = 0

  constructor(
    private readonly path: string,
    private readonly locks: DirectoryLocks,
  ) {}

  /** The present state. One stat(2) unless another process changed the file. @throws FaasError `store/*` */
  read(): StoreState {
    try {
      // Synchronous on purpose: a few microseconds here, against a hundred for a trip through the thread pool.
      const stats = statSync(this.path, { bigint: true, throwIfNoEntry: false })
      if (stats === undefined) return EMPTY
      const identity = `${stats.ino}:${stats.mtimeNs}:${stats.size}`
      if (this.#cached?.identity !== identity) this.#cached = { identity, state: parse(readFileSync(this.path, 'utf8')) }
      return this.#cached.state
    } catch (error) {
      if (isMissing(error)) return EMPTY
      throw storeFailure(error, 'reading its index')
    }
  }

  /** Applies a change; returning the same state writes nothing. */
  async update(change: (state: StoreState) => StoreState, signal: AbortSignal): Promise<StoreState> {
    const lock = await this.locks.acquire('state', 'exclusive', signal)
    try {
      const before = this.read()
      const after = change(before)
      if (after !== before) await this.#write(after)
      return after
    } finally {
      lock.release()
    }
  }

  /** Removes what a process that was killed while writing left. */
  async reclaim(): Promise<void> {
    const lock = await this.locks.acquire('state', 'exclusive', new AbortController().signal)
    try {
      const prefix = `${basename(this.path)}.`
      for (const name of await readdir(dirname(this.path))) {
        // Under the lock nobody else is writing one.
        if (name.startsWith(prefix) && name.endsWith('.tmp')) await rm(join(dirname(this.path), name), { force: true })
      }
    } catch (error) {
      throw storeFailure(error, 'opening its index')
    } finally {
      lock.release()
    }
  }

  async #write(state: StoreState): Promise<void> {
    const temporary = `${this.path}.${process.pid}.${this.#writes++}.tmp`
    try {
      const file = await open(temporary, 'w', 0o600)
      try {
        await file.writeFile(JSON.stringify({ format: FORMAT, ...state }))
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(temporary, this.path)
    } catch (error) {
      await rm(temporary, { force: true })
      throw storeFailure(error, 'writing its index')
    }
  }
}

/** Only this program writes the file, so a shallow check is enough to tell a damaged one. */
function parse(text: string): StoreState {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw corrupt(cause)
  }
  if (typeof value !== 'object' || value === null || !('format' in value) || !('references' in value) || !('images' in value)) throw corrupt()
  if (value.format !== FORMAT) throw new FaasError('store/corrupt', { message: `The image store has format ${String(value.format)}; this version understands ${FORMAT}.` })
  const state = value as unknown as StoreState
  for (const { digest } of Object.values(state.references)) {
    if (!isImageDigest(digest) || !Object.hasOwn(state.images, digest)) throw corrupt()
  }
  return { references: state.references, images: state.images }
}

function corrupt(cause?: unknown): FaasError {
  return new FaasError('store/corrupt', {
    message: 'The index of the image store is damaged.',
    hint: 'Move state.json of the image directory away and import or pull the images again.',
    cause,
  })
}
