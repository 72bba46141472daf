/**
 * Images that this machine built for itself, brought into the stores: under their own names, and as stand-ins
 * for the names that the original clients use, while nothing else carries those.
 *
 * I1. A stand-in never replaces an image that somebody pulled or imported under the name.
 */
import { watch } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImageStore, LogSink, ResolvedImage } from '@faas-platform/core'
import { isFaasError } from '@faas-platform/core'

/** Built image → names it may answer to. */
const STAND_INS: Readonly<Record<string, readonly string[]>> = {
  'faas/base:latest': ['alpine:latest'],
  'faas/python:3.11': ['python:3.11-slim'],
  'faas/node:20': ['node:20-slim', 'node:18-alpine'],
}

interface BuiltImage {
  readonly reference: string
  readonly digest: string
  readonly dir: string
}

export interface LocalImagesOptions {
  /** Holds `<name>/` (OCI layouts) and `<name>.stamp.json`, written last. */
  readonly dir: string
  readonly standIns: 'auto' | 'never'
  readonly stores: ReadonlyMap<string, ImageStore>
  readonly log: LogSink
  readonly onImported: () => void
}

export class LocalImages implements AsyncDisposable {
  readonly #stop = new AbortController()
  #round: Promise<void> = Promise.resolve()

  constructor(private readonly options: LocalImagesOptions) {}

  /**
   * Brings in what is there now, or only the image that answers to `only`.
   * A store or image that fails is logged and does not keep the others from coming.
   */
  bringIn(only?: string): Promise<void> {
    this.#round = this.#round.then(() => this.#bringIn(only))
    return this.#round
  }

  /** Brings in what is built later. */
  watch(): void {
    const failed = (error: unknown): void => this.options.log.warn({ err: error, dir: this.options.dir }, 'built images are not watched; those that come later need a restart')
    try {
      watch(this.options.dir, { signal: this.#stop.signal, persistent: false }, (_event, file) => {
        if (file?.endsWith('.stamp.json') === true) void this.bringIn()
      }).on('error', failed)
    } catch (error) {
      failed(error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort()
    await this.#round
  }

  async #bringIn(only: string | undefined): Promise<void> {
    const built = (await this.#builtImages()).filter(({ reference }) => only === undefined || reference === only || STAND_INS[reference]?.includes(only) === true)
    await Promise.all([...this.options.stores].map(async ([family, store]) => {
      for (const image of built) await this.#bringInto(family, store, image)
    }))
  }

  async #bringInto(family: string, store: ImageStore, image: BuiltImage): Promise<void> {
    const names = [image.reference, ...(this.options.standIns === 'auto' ? (STAND_INS[image.reference] ?? []) : [])]
    for (const reference of names) {
      if (this.#stop.signal.aborted) return
      const standIn = reference !== image.reference
      try {
        const stored = await this.#stored(store, reference)
        if (stored !== null && (standIn ? await this.#needsNoStandIn(store, image, stored) : isCurrent(family, image, stored))) continue
        await store.importArchive(image.dir, { reference, standIn, signal: this.#stop.signal })
        this.options.log.info({ store: family, image: reference, standIn }, 'image imported')
        this.options.onImported()
      } catch (error) {
        if (this.#stop.signal.aborted) return
        this.options.log.error({ err: error, store: family, image: reference }, 'image not imported')
      }
    }
  }

  /** I1. A name that carries the very image that was built here is a stand-in, whoever set it: engines are shared. */
  async #needsNoStandIn(store: ImageStore, image: BuiltImage, stored: ResolvedImage): Promise<boolean> {
    const own = await this.#stored(store, image.reference)
    const isSame = stored.digest === own?.digest
    return stored.standIn ? isSame : !isSame
  }

  async #stored(store: ImageStore, reference: string): Promise<ResolvedImage | null> {
    try {
      return await store.resolve(reference, { pull: 'never', signal: this.#stop.signal })
    } catch (error) {
      if (isFaasError(error, 'image/not-found')) return null
      throw error
    }
  }

  async #builtImages(): Promise<readonly BuiltImage[]> {
    const { dir, log } = this.options
    let files: readonly string[]
    try {
      files = await readdir(dir)
    } catch (error) {
      log.warn({ err: error, dir }, 'there are no built images')
      return []
    }
    const built: BuiltImage[] = []
    for (const file of files.filter((name) => name.endsWith('.stamp.json')).sort()) {
      try {
        const stamp = JSON.parse(await readFile(join(dir, file), 'utf8')) as Readonly<Record<string, unknown>>
        const { ref, digest } = stamp
        if (typeof ref === 'string' && typeof digest === 'string') built.push({ reference: ref, digest, dir: join(dir, file.slice(0, -'.stamp.json'.length)) })
        else log.warn({ file }, 'the stamp of a built image has no ref and digest')
      } catch (error) {
        log.warn({ err: error, file }, 'the stamp of a built image can not be read')
      }
    }
    return built
  }
}

/** An engine's store has digests of its own: a newer build is only seen where digests are the archive's. */
function isCurrent(family: string, image: BuiltImage, stored: ResolvedImage): boolean {
  return stored.digest === image.digest || family === 'docker'
}
