/** Turns references into digests: a short-lived memory of answers, and one resolve or pull per reference at a time. */
import type { Clock, PullProgress, ResolvedImage, RuntimeDriver } from '@faas-platform/core'
import { SingleFlight } from './single-flight.js'

interface Remembered {
  readonly image: ResolvedImage
  readonly untilMs: number
}

export interface ResolveOptions {
  readonly signal: AbortSignal
  readonly onProgress?: ((progress: PullProgress) => void) | undefined
}

const REMEMBERED_MAX = 1024

export class ImageResolver {
  readonly #remembered = new Map<string, Remembered>()
  readonly #flights = new SingleFlight<ResolvedImage>()
  readonly #prepared = new Set<string>()
  readonly #listeners = new Map<string, Set<(progress: PullProgress) => void>>()

  constructor(private readonly clock: Clock, private readonly cacheMs: number) {}

  /** The hot path: a known answer without a promise. */
  peek(driver: RuntimeDriver, reference: string): ResolvedImage | undefined {
    const known = this.#remembered.get(keyOf(driver, reference))
    return known !== undefined && known.untilMs > this.clock.monotonicMs() ? known.image : undefined
  }

  /** Resolves, pulling when missing, and prepares the image for fast creation. @throws FaasError `image/*` */
  async resolve(driver: RuntimeDriver, reference: string, { signal, onProgress }: ResolveOptions): Promise<ResolvedImage> {
    const key = keyOf(driver, reference)
    const listeners = this.#listeners.get(key) ?? new Set()
    this.#listeners.set(key, listeners)
    if (onProgress !== undefined) listeners.add(onProgress)
    try {
      return await this.#flights.do(key, signal, (shared) => this.#resolve(driver, reference, shared))
    } finally {
      if (onProgress !== undefined) listeners.delete(onProgress)
      if (listeners.size === 0) this.#listeners.delete(key)
    }
  }

  /** After a change in a store, or when a digest turned out to be gone. */
  invalidate(): void {
    this.#remembered.clear()
    this.#prepared.clear()
  }

  async #resolve(driver: RuntimeDriver, reference: string, signal: AbortSignal): Promise<ResolvedImage> {
    const key = keyOf(driver, reference)
    const image = await driver.images.resolve(reference, {
      pull: 'missing',
      signal,
      onProgress: (progress) => {
        for (const listener of this.#listeners.get(key) ?? []) listener(progress)
      },
    })
    const digestKey = keyOf(driver, image.digest)
    if (!this.#prepared.has(digestKey)) {
      await driver.prepareImage(image, signal)
      this.#prepared.add(digestKey)
    }
    if (this.#remembered.size >= REMEMBERED_MAX) this.#remembered.clear()
    this.#remembered.set(key, { image, untilMs: this.clock.monotonicMs() + this.cacheMs })
    return image
  }
}

function keyOf(driver: RuntimeDriver, reference: string): string {
  return `${driver.name} ${reference}`
}
