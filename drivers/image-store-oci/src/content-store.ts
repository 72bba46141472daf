/**
 * Takes an image's content in: from its manifest down to unpacked layers, each blob and layer once.
 *
 * I1. While content is taken in, the `content` lock is held shared; who removes content holds it exclusively.
 * I2. Equal work is done once: within this process by flights, between processes by a lock per blob and layer.
 */
import { readdir, rename, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError, isImageDigest, type ImageDigest, type PullProgress } from '@faas-platform/core'
import { BlobDir, digestOf, hexOf, mismatch, type BlobTransfer } from './blob-dir.js'
import { LayerDir, type LayerInfo } from './layer-dir.js'
import type { StoreLimits } from './limits.js'
import type { DirectoryLocks } from './locks.js'
import { invalidImage, parseConfig, parseManifest, type Descriptor, type Manifest } from './manifest.js'
import { checkPlatform, selectPlatform, type Platform } from './platform.js'
import { SingleFlight } from './single-flight.js'
import type { ImageRecord, StoreState } from './state-file.js'
import { storePaths, type Workspace } from './workspace.js'

/** Where content comes from: a registry, a layout, an archive. */
export interface ContentSource {
  /** A manifest that an index names. Checked by the caller. */
  document(descriptor: Descriptor, bytesMax: number, signal: AbortSignal): Promise<Uint8Array>
  blob(descriptor: Descriptor): BlobTransfer
}

export interface TakeInOptions {
  readonly signal: AbortSignal
  readonly onProgress?: ((progress: PullProgress) => void) | undefined
}

export interface TakenIn {
  readonly digest: ImageDigest
  readonly record: ImageRecord
}

type Progress = (progress: PullProgress) => void

const INDEX_DEPTH_MAX = 3

export class ContentStore {
  readonly blobs: BlobDir
  readonly layers: LayerDir
  readonly #blobFlights = new SingleFlight<void, PullProgress>()
  readonly #layerFlights = new SingleFlight<LayerInfo, PullProgress>()

  constructor(
    private readonly options: {
      readonly dir: string
      readonly hostkitPath: string
      readonly platform: Platform
      readonly limits: StoreLimits
      readonly locks: DirectoryLocks
      readonly workspace: () => Workspace
    },
  ) {
    const paths = storePaths(options.dir)
    this.blobs = new BlobDir(paths.blobs)
    this.layers = new LayerDir(paths.layers, options.hostkitPath, options.limits)
  }

  /**
   * Takes in the image that `manifest` describes, or of an index the one for this platform.
   * The caller holds the `content` lock (I1) and records the result before it lets go.
   * @throws FaasError `image/*`, `store/unavailable`
   */
  async takeIn(source: ContentSource, manifest: { readonly bytes: Uint8Array; readonly mediaType?: string | undefined }, options: TakeInOptions): Promise<TakenIn> {
    const { bytes, parsed } = await this.#selectManifest(source, manifest, options.signal)
    const { limits } = this.options
    const announced = parsed.layers.reduce((sum, { size }) => sum + size, 0)
    if (announced > limits.imageBytesMax) throw tooLarge(limits.imageBytesMax)
    if (parsed.config.size > limits.manifestBytesMax) throw invalidImage(`The image config is larger than ${limits.manifestBytesMax} bytes.`)

    await this.#ensureBlob(source, parsed.config, options)
    const config = parseConfig(await this.blobs.read(parsed.config.digest))
    checkPlatform(config, this.options.platform)
    if (config.diffIds.length !== parsed.layers.length) throw invalidImage('The image config does not list as many layers as the manifest.')

    const layers = parsed.layers.map((layer, i) => ({ ...layer, diffId: config.diffIds[i] ?? layer.digest }))
    const sizeBytes = await this.#ensureLayers(source, layers, options)
    const digest = digestOf(bytes)
    await this.options.workspace().temporary(async (temporaryDir) => {
      if (!(await this.blobs.has(digest))) await this.blobs.put(digest, bytes, temporaryDir)
    })
    const record: ImageRecord = { configDigest: parsed.config.digest, config: config.config, layers: layers.map((layer) => ({ digest: layer.digest, diffId: layer.diffId })), sizeBytes }
    return { digest, record }
  }

  async #selectManifest(source: ContentSource, manifest: { readonly bytes: Uint8Array; readonly mediaType?: string | undefined }, signal: AbortSignal): Promise<{ bytes: Uint8Array; parsed: Manifest }> {
    let { bytes, mediaType } = manifest
    for (let depth = 0; depth < INDEX_DEPTH_MAX; depth++) {
      const parsed = parseManifest(bytes, mediaType)
      if (parsed.kind === 'manifest') return { bytes, parsed }
      const chosen = selectPlatform(parsed.manifests, this.options.platform)
      bytes = await source.document(chosen, this.options.limits.manifestBytesMax, signal)
      if (bytes.length !== chosen.size) throw mismatch(chosen.digest, `it has ${bytes.length} bytes, not ${chosen.size}`)
      const actual = digestOf(bytes)
      if (actual !== chosen.digest) throw mismatch(chosen.digest, `its digest is ${actual}`)
      mediaType = chosen.mediaType
    }
    throw invalidImage(`The image's indexes are nested more than ${INDEX_DEPTH_MAX} deep.`)
  }

  /** Returns the bytes of all files. The first failure stops the other layers, and is thrown when they have stopped. */
  async #ensureLayers(source: ContentSource, layers: readonly (Descriptor & { readonly diffId: ImageDigest })[], options: TakeInOptions): Promise<number> {
    const stop = new AbortController()
    const signal = AbortSignal.any([options.signal, stop.signal])
    const queue = layers.entries()
    let failure: { readonly error: unknown } | undefined
    let total = 0
    for (const layer of layers) report(options.onProgress, layer, 'waiting', 0)
    const worker = async (): Promise<void> => {
      for (const [, layer] of queue) {
        if (failure !== undefined) return
        try {
          const info = await this.#ensureLayer(source, layer, { signal, onProgress: options.onProgress })
          total += info.bytes
          if (total > this.options.limits.imageBytesMax) throw tooLarge(this.options.limits.imageBytesMax)
          report(options.onProgress, layer, 'done', layer.size)
        } catch (error) {
          failure ??= { error }
          stop.abort(error)
        }
      }
    }
    await Promise.all(Array.from({ length: this.options.limits.parallelLayers }, worker))
    if (failure !== undefined) throw failure.error
    return total
  }

  async #ensureLayer(source: ContentSource, layer: Descriptor & { readonly diffId: ImageDigest }, options: TakeInOptions): Promise<LayerInfo> {
    const known = await this.layers.info(layer.diffId)
    if (known !== undefined) return known
    await this.#ensureBlob(source, layer, options)
    return this.#layerFlights.run(layer.diffId, options, async (signal, onProgress) => {
      const lock = await this.options.locks.acquire(`layer-${hexOf(layer.diffId)}`, 'exclusive', signal)
      try {
        const made = await this.layers.info(layer.diffId)
        if (made !== undefined) return made
        return await this.options.workspace().temporary((temporaryDir) =>
          this.layers.unpack(layer.diffId, this.blobs.stream(layer.digest, signal), {
            temporaryDir,
            signal,
            onBytes: throttled((bytes) => onProgress({ layer: layer.digest, phase: 'unpacking', currentBytes: bytes, totalBytes: null })),
          }),
        )
      } finally {
        lock.discard()
      }
    })
  }

  async #ensureBlob(source: ContentSource, descriptor: Descriptor, options: TakeInOptions): Promise<void> {
    if (await this.blobs.has(descriptor.digest)) return
    await this.#blobFlights.run(descriptor.digest, options, async (signal, onProgress) => {
      const lock = await this.options.locks.acquire(`blob-${hexOf(descriptor.digest)}`, 'exclusive', signal)
      try {
        if (await this.blobs.has(descriptor.digest)) return
        const onBytes = throttled((bytes) => report(onProgress, descriptor, 'downloading', bytes))
        await this.options.workspace().temporary((temporaryDir) => this.blobs.ingest(descriptor, source.blob(descriptor), { temporaryDir, signal, onBytes }))
      } finally {
        lock.discard()
      }
    })
  }

  /** Removes every blob and layer that `state` does not need. The caller holds `content` exclusively (I1). Returns freed bytes of blobs and layers. */
  async sweep(state: StoreState): Promise<{ readonly blobs: number; readonly layers: number }> {
    const needed = new Set<string>()
    for (const [digest, image] of Object.entries(state.images)) {
      for (const id of [digest, image.configDigest, ...image.layers.map((layer) => layer.digest)]) if (isImageDigest(id)) needed.add(hexOf(id))
    }
    const neededLayers = new Set(Object.values(state.images).flatMap((image) => image.layers.map((layer) => hexOf(layer.diffId))))
    const paths = storePaths(this.options.dir)
    const counts = { blobs: 0, layers: 0 }
    await this.options.workspace().temporary(async (temporaryDir) => {
      for (const hex of await readdir(join(paths.blobs, 'sha256'))) {
        if (needed.has(hex)) continue
        await rm(join(paths.blobs, 'sha256', hex), { force: true })
        counts.blobs++
      }
      for (const hex of await readdir(paths.layers)) {
        if (neededLayers.has(hex)) continue
        // Away first: a half removed layer must never look like a whole one.
        await rename(join(paths.layers, hex), join(temporaryDir, hex))
        counts.layers++
      }
    })
    return counts
  }

  /** Bytes on disk of blobs, and of the files in unpacked layers, needed or not. */
  async usage(): Promise<{ readonly blobBytes: number; readonly layerBytes: number }> {
    const paths = storePaths(this.options.dir)
    const blobs = await readdir(join(paths.blobs, 'sha256'))
    const sizes = await Promise.all(blobs.map(async (hex) => (await stat(join(paths.blobs, 'sha256', hex))).size))
    const infos = await Promise.all((await readdir(paths.layers)).map((hex) => this.layers.info(`sha256:${hex}` as ImageDigest)))
    return { blobBytes: sizes.reduce((sum, size) => sum + size, 0), layerBytes: infos.reduce((sum, info) => sum + (info?.bytes ?? 0), 0) }
  }
}

function report(onProgress: Progress | undefined, { digest, size }: Descriptor, phase: PullProgress['phase'], currentBytes: number): void {
  onProgress?.({ layer: digest, phase, currentBytes, totalBytes: size })
}

/** Passes on one call per MiB, which is enough for a bar and cheap for a fast disk. */
function throttled(emit: (bytes: number) => void): (bytes: number) => void {
  let shown = -1
  return (bytes) => {
    const step = Math.floor(bytes / (1024 * 1024))
    if (step === shown) return
    shown = step
    emit(bytes)
  }
}

function tooLarge(max: number): FaasError {
  return new FaasError('image/too-large', { message: `The image is larger than the allowed ${max} bytes.` })
}
