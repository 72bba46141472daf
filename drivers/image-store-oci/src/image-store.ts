/**
 * The platform's own image store: core's `ImageStore` over a directory, for the runtimes without an engine.
 *
 * I1. A reference that is known here is answered from memory, without a lock and without the network.
 * I2. A reference or image is recorded only after all of its content is in place, so a kill at any moment leaves
 *     either the old or the new truth, and temporary files that the next start removes.
 * I3. Content is removed only by who holds `content` exclusively, and an image only by who holds its lock exclusively.
 * I4. Several processes may use one directory.
 */
import {
  bug, FaasError, isFaasError, systemClock, type Clock, type ImageDigest, type ImageResolveOptions, type ImageStore, type LogSink,
  type ImageConfig, type PullProgress, type ResolvedImage, type StoredImage,
} from '@faas-platform/core'
import { openArchive } from './archive.js'
import { findImages, type ArchiveImage } from './archive-images.js'
import { hexOf } from './blob-dir.js'
import { ContentStore, type TakenIn } from './content-store.js'
import { DEFAULT_LIMITS, type StoreLimits } from './limits.js'
import { DirectoryLocks, type Lock } from './locks.js'
import { hostPlatform, type Platform } from './platform.js'
import { parseName, parseReference, type NamedReference, type Reference } from './reference.js'
import { RegistryClient, type RegistryOptions } from './registry/client.js'
import { buildImage } from './rootfs-image.js'
import { SingleFlight } from './single-flight.js'
import { StateFile, type StoreState } from './state-file.js'
import { openWorkspace, storePaths, type Workspace } from './workspace.js'

export interface OciImageStoreOptions {
  /** Of this store alone. Made when missing. */
  readonly dir: string
  /** The `faas-hostkit` binary. */
  readonly hostkitPath: string
  readonly log: LogSink
  /** Default: this host's. */
  readonly platform?: Platform
  readonly limits?: Partial<StoreLimits>
  readonly registry?: RegistryOptions
  readonly clock?: Clock
}

/** Holds an image's layers in place while they are mounted. */
export interface RootfsLease {
  /** Absolute, top-most first: as overlayfs wants them in `lowerdir`. */
  readonly layerDirs: readonly string[]
  /** Idempotent. */
  release(): Promise<void>
}

export interface PruneReport {
  readonly images: number
  readonly blobs: number
  readonly layers: number
}

export interface StoreUsage {
  readonly blobBytes: number
  readonly layerBytes: number
}

interface LeasedImage {
  count: number
  lock: Promise<Lock>
}

type Names = readonly NamedReference[]

/** A mirror that does not have it, or does not answer, is passed over; one that lies is not. */
const MIRROR_FAILURES = ['image/not-found', 'image/pull-failed', 'image/unauthorized'] as const

export class OciImageStore implements ImageStore, AsyncDisposable {
  readonly #options: OciImageStoreOptions
  readonly #limits: StoreLimits
  readonly #platform: Platform
  readonly #locks: DirectoryLocks
  readonly #state: StateFile
  readonly #content: ContentStore
  readonly #clock: Clock
  readonly #registry: RegistryClient
  readonly #leases = new Map<ImageDigest, LeasedImage>()
  readonly #pulls = new SingleFlight<ResolvedImage, PullProgress>()
  #workspace: Workspace | undefined
  /** Content was to be removed while somebody took content in. */
  #sweepDue = false
  #ready: Promise<Workspace> | undefined

  constructor(options: OciImageStoreOptions) {
    const paths = storePaths(options.dir)
    this.#options = options
    this.#platform = options.platform ?? hostPlatform()
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits }
    this.#clock = options.clock ?? systemClock
    this.#registry = new RegistryClient({ clock: this.#clock, ...options.registry })
    this.#locks = new DirectoryLocks({ dir: paths.locks, hostkitPath: options.hostkitPath })
    this.#state = new StateFile(paths.state, this.#locks)
    this.#content = new ContentStore({
      dir: options.dir,
      hostkitPath: options.hostkitPath,
      platform: this.#platform,
      limits: this.#limits,
      locks: this.#locks,
      // Already there: every way in goes through `#open` first.
      workspace: () => this.#workspace ?? bug('The image store was used before it was opened.'),
    })
  }

  async resolve(reference: string, options: ImageResolveOptions): Promise<ResolvedImage> {
    const parsed = parseReference(reference)
    const known = this.#lookUp(parsed)
    if (known !== undefined && (options.pull !== 'always' || isPinned(parsed))) return known // I1
    if (options.pull === 'never' || parsed.kind === 'digest') throw notFound(parsed.text)
    return this.#pulls.run(`${options.pull} ${parsed.text}`, options, (signal, onProgress) => this.#pull(parsed, signal, onProgress))
  }

  async list(signal: AbortSignal): Promise<readonly StoredImage[]> {
    signal.throwIfAborted()
    const state = this.#state.read()
    return Object.keys(state.references)
      .sort()
      .flatMap((reference) => storedImage(state, reference) ?? [])
  }

  async importArchive(
    path: string,
    options: { readonly reference?: string; readonly standIn?: boolean; readonly signal: AbortSignal; readonly onProgress?: (progress: PullProgress) => void },
  ): Promise<readonly StoredImage[]> {
    const { signal, onProgress } = options
    const override = options.reference === undefined ? undefined : parseName(options.reference)
    const workspace = await this.#open()
    return workspace.temporary(async (temporaryDir) => {
      const archive = await openArchive(path, { temporaryDir, limits: this.#limits, signal })
      const images = await findImages(archive, { documentBytesMax: this.#limits.manifestBytesMax, signal })
      const named = images.map((image) => ({ image, names: namesFor(image, images.length, override) }))
      return this.#takingIn(signal, async () => {
        const stored: StoredImage[] = []
        for (const { image, names } of named) {
          const takenIn = await this.#content.takeIn(image.source, image.manifest, { signal, onProgress })
          stored.push(...(await this.#record(takenIn, names, options.standIn === true, signal)))
        }
        return stored
      })
    })
  }

  async buildFromRootfs(rootfsPath: string, options: { readonly reference: string; readonly config: ImageConfig; readonly signal: AbortSignal }): Promise<StoredImage> {
    const { config, signal } = options
    const name = parseName(options.reference)
    const workspace = await this.#open()
    return workspace.temporary(async (temporaryDir) => {
      const { hostkitPath } = this.#options
      const built = await buildImage(rootfsPath, { config, platform: this.#platform, hostkitPath, limits: this.#limits, temporaryDir, signal })
      return this.#takingIn(signal, async () => {
        const takenIn = await this.#content.takeIn(built.source, built.manifest, { signal })
        const [stored] = await this.#record(takenIn, [name], false, signal)
        return stored ?? bug('An image that was just recorded is not there.')
      })
    })
  }

  async remove(reference: string, signal: AbortSignal): Promise<void> {
    const parsed = parseReference(reference)
    const digest = this.#lookUp(parsed)?.digest
    if (digest === undefined) throw notFound(parsed.text)
    await this.#open()
    const state = this.#state.read()
    const removed = parsed.kind === 'digest' ? namesOf(state, digest) : [parsed.text]
    const isLast = namesOf(state, digest).every((name) => removed.includes(name))
    const lock = isLast ? await this.#locks.tryAcquire(imageLock(digest), 'exclusive') : undefined
    if (isLast && lock === undefined) throw new FaasError('image/in-use', { message: `The image ${parsed.text} is in use.`, hint: 'End the sandboxes that were made from it first.' })
    try {
      await this.#state.update((now) => {
        const references = without(now.references, removed)
        const isFree = lock !== undefined && namesOf({ ...now, references }, digest).length === 0
        return { references, images: isFree ? without(now.images, [digest]) : now.images }
      }, signal)
    } finally {
      lock?.discard()
    }
    await this.#sweep()
  }

  /** Removes images without a name that nobody uses, and content that no image needs. */
  async prune(signal: AbortSignal): Promise<PruneReport> {
    await this.#open()
    let images = 0
    for (const digest of Object.keys(this.#state.read().images) as ImageDigest[]) {
      signal.throwIfAborted()
      if (namesOf(this.#state.read(), digest).length > 0) continue
      const lock = await this.#locks.tryAcquire(imageLock(digest), 'exclusive')
      if (lock === undefined) continue
      try {
        const after = await this.#state.update((now) => (namesOf(now, digest).length > 0 ? now : { ...now, images: without(now.images, [digest]) }), signal)
        if (!Object.hasOwn(after.images, digest)) images++
      } finally {
        lock.discard()
      }
    }
    return { images, ...(await this.#sweep()) }
  }

  /** Bytes on disk. */
  async usage(): Promise<StoreUsage> {
    await this.#open()
    return this.#content.usage()
  }

  /**
   * The layers of an image, which stay in place until the lease is released or this process ends.
   * @throws FaasError `image/not-found`
   */
  async leaseRootfs(digest: ImageDigest): Promise<RootfsLease> {
    await this.#open()
    const leased = this.#leases.get(digest) ?? { count: 0, lock: this.#locks.acquire(imageLock(digest), 'shared', new AbortController().signal) }
    this.#leases.set(digest, leased)
    leased.count++
    let released = false
    const release = async (): Promise<void> => {
      if (released) return
      released = true
      if (--leased.count > 0) return
      if (this.#leases.get(digest) === leased) this.#leases.delete(digest)
      await leased.lock.then((lock) => lock.release())
    }
    try {
      await leased.lock
      // Only now: until the lock was there, another process could remove the image (I3).
      const record = this.#state.read().images[digest]
      if (record === undefined) throw notFound(digest)
      return { layerDirs: record.layers.map(({ diffId }) => this.#content.layers.path(diffId)).reverse(), release }
    } catch (error) {
      await release().catch(() => {}) // the lock never was, and `error` says why
      throw error
    }
  }

  /** Ends this process's use of the directory. Leases are void afterwards. */
  async close(): Promise<void> {
    await this.#ready?.catch(() => undefined) // who opened it was told of the failure
    await this.#workspace?.close()
    await this.#locks.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #pull(reference: NamedReference, signal: AbortSignal, onProgress: (progress: PullProgress) => void): Promise<ResolvedImage> {
    await this.#open()
    const endpoints = this.#registry.endpoints(reference.registry)
    for (const [i, endpoint] of endpoints.entries()) {
      try {
        return await this.#takingIn(signal, async () => {
          const manifest = await this.#registry.manifest(endpoint, reference, this.#limits.manifestBytesMax, signal)
          const takenIn = await this.#content.takeIn(this.#registry.source(endpoint, reference), manifest, { signal, onProgress })
          await this.#record(takenIn, [reference], false, signal)
          const { config, sizeBytes } = takenIn.record
          return { digest: takenIn.digest, reference: reference.text, config, sizeBytes, standIn: false }
        })
      } catch (error) {
        const isMirror = i < endpoints.length - 1
        if (!isMirror || !MIRROR_FAILURES.some((code) => isFaasError(error, code))) throw error
        this.#options.log.warn({ mirror: endpoint.base.host, reference: reference.text, error }, 'a registry mirror failed; asking the next')
      }
    }
    throw notFound(reference.text)
  }

  /** Makes the directory ready, once: what a killed process left goes first. */
  #open(): Promise<Workspace> {
    this.#ready ??= this.#prepare().catch((error: unknown) => {
      this.#ready = undefined
      throw error
    })
    return this.#ready
  }

  async #prepare(): Promise<Workspace> {
    this.#workspace ??= await openWorkspace(this.#options.dir, this.#locks, this.#options.log)
    await this.#state.reclaim()
    await this.#sweep()
    return this.#workspace
  }

  #lookUp(reference: Reference): ResolvedImage | undefined {
    const state = this.#state.read()
    const named = state.references[reference.text]
    const digest = named?.digest ?? (isPinned(reference) ? reference.digest : undefined)
    const image = digest === undefined ? undefined : state.images[digest]
    if (digest === undefined || image === undefined) return undefined
    return { digest, reference: reference.text, config: image.config, sizeBytes: image.sizeBytes, standIn: named?.standIn ?? false }
  }

  /** Content stays while `use` runs; afterwards what became superfluous goes. */
  async #takingIn<T>(signal: AbortSignal, use: () => Promise<T>): Promise<T> {
    const lock = await this.#locks.acquire('content', 'shared', signal)
    let failed = true
    try {
      const result = await use()
      failed = false
      return result
    } finally {
      lock.release()
      // A failed one leaves content that belongs to no image; a removal meanwhile could not sweep.
      if (failed || this.#sweepDue) await this.#sweep().catch((error: unknown) => this.#options.log.warn({ error }, 'could not remove content that no image needs'))
    }
  }

  /** Only when nobody takes content in; who ends taking in, or prunes, sweeps later. */
  async #sweep(): Promise<{ readonly blobs: number; readonly layers: number }> {
    const lock = await this.#locks.tryAcquire('content', 'exclusive')
    this.#sweepDue = lock === undefined
    if (lock === undefined) return { blobs: 0, layers: 0 }
    try {
      return await this.#content.sweep(this.#state.read())
    } finally {
      lock.release()
    }
  }

  async #record({ digest, record }: TakenIn, names: Names, standIn: boolean, signal: AbortSignal): Promise<readonly StoredImage[]> {
    const createdAtMs = this.#clock.nowMs()
    const after = await this.#state.update((now) => {
      const entries = names.map((name) => [name.text, { digest, createdAtMs, standIn }] as const)
      return { references: { ...now.references, ...Object.fromEntries(entries) }, images: { ...now.images, [digest]: record } }
    }, signal)
    return names.flatMap((name) => storedImage(after, name.text) ?? [])
  }
}

function isPinned(reference: Reference): reference is Reference & { readonly digest: ImageDigest } {
  return reference.digest !== undefined
}

function namesFor(image: ArchiveImage, count: number, override: NamedReference | undefined): Names {
  if (override !== undefined) {
    if (count > 1) throw new FaasError('image/invalid-reference', { message: `The archive holds ${count} images, so one name can not stand for them.`, hint: 'Import it without a name.' })
    return [override]
  }
  if (image.names.length === 0) {
    throw new FaasError('image/invalid-reference', { message: 'The archive does not say what its image is called.', hint: 'Give the name with the import.' })
  }
  return image.names.map(parseName)
}

function namesOf(state: StoreState, digest: ImageDigest): readonly string[] {
  return Object.entries(state.references).flatMap(([name, record]) => (record.digest === digest ? [name] : []))
}

function storedImage(state: StoreState, reference: string): StoredImage | undefined {
  const record = state.references[reference]
  const image = record === undefined ? undefined : state.images[record.digest]
  if (record === undefined || image === undefined) return undefined
  return { reference, digest: record.digest, sizeBytes: image.sizeBytes, createdAtMs: record.createdAtMs, standIn: record.standIn }
}

function without<T>(map: Readonly<Record<string, T>>, keys: readonly string[]): Readonly<Record<string, T>> {
  return Object.fromEntries(Object.entries(map).filter(([key]) => !keys.includes(key)))
}

function imageLock(digest: ImageDigest): string {
  return `image-${hexOf(digest)}`
}

function notFound(reference: string): FaasError {
  return new FaasError('image/not-found', {
    message: `The image ${reference} is not stored here.`,
    hint: 'Pull it, or without a registry in reach bring it in with `faas image import <archive>` or `faas image build <directory>`.',
  })
}
