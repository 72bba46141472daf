/** From a request to a fresh sandbox: runtime, image, then the pool or a creation. Shared by every mode that needs one. */
import {
  isFaasError, type IsolationClass, type LogSink, type NetworkPolicy, type PullProgress, type ResolvedImage, type RuntimeDecision, type RuntimeName, type SandboxLimits, type Stopwatch,
} from '@faas-platform/core'
import type { ImageResolver } from './images.js'
import type { TakenSandbox } from './pool/slot.js'
import type { WarmPool } from './pool/warm-pool.js'
import type { Chosen, RuntimeNeeds, Runtimes } from './runtimes.js'

/** What a fresh sandbox must be. */
export interface SandboxWish extends RuntimeNeeds {
  readonly image: string
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
}

/** Filled in step by step, so that a failed execution still tells how far it came. */
export interface Progress {
  readonly watch: Stopwatch
  readonly signal: AbortSignal
  readonly onPullProgress?: ((progress: PullProgress) => void) | undefined
  decision: RuntimeDecision | null
  image: ResolvedImage | null
}

export interface Placed extends TakenSandbox {
  readonly chosen: Chosen
  readonly image: ResolvedImage
}

export class Placement {
  constructor(private readonly runtimes: Runtimes, private readonly images: ImageResolver, private readonly pool: WarmPool, private readonly log: LogSink) {}

  /** @throws FaasError `runtime/*`, `image/*`, `sandbox/create-*`, `network/unavailable` */
  async obtain(wish: SandboxWish, progress: Progress): Promise<Placed> {
    const { chosen, image } = await this.resolve(wish, progress)
    try {
      return await this.#sandbox(wish, chosen, image, progress)
    } catch (error) {
      if (!isFaasError(error, 'image/not-found')) throw error
      // The image was removed since it was remembered: ask its store once more.
      this.images.invalidate()
      const again = await this.resolve(wish, progress)
      return this.#sandbox(wish, again.chosen, again.image, progress)
    }
  }

  async resolve(wish: SandboxWish, progress: Progress): Promise<{ readonly chosen: Chosen; readonly image: ResolvedImage }> {
    const chosen = await this.#choose(wish, progress.signal)
    progress.decision = chosen.decision
    const image = this.images.peek(chosen.driver, wish.image)
      ?? await this.images.resolve(chosen.driver, wish.image, { signal: progress.signal, onProgress: progress.onPullProgress })
    progress.image = image
    progress.watch.lap('image')
    return { chosen, image }
  }

  isolationOf(runtime: RuntimeName): IsolationClass {
    return this.runtimes.driver(runtime)?.features.isolation ?? 'none'
  }

  async #choose(wish: SandboxWish, signal: AbortSignal): Promise<Chosen> {
    try {
      return this.runtimes.choose(wish)
    } catch (error) {
      // It may have come up since it was last looked at.
      const mayHaveChanged = isFaasError(error, 'runtime/unavailable') || isFaasError(error, 'runtime/none-available')
      if (!mayHaveChanged || !(await this.runtimes.reprobe(signal))) throw error
      return this.runtimes.choose(wish)
    }
  }

  async #sandbox(wish: SandboxWish, chosen: Chosen, image: ResolvedImage, { watch, signal }: Progress): Promise<Placed> {
    const spec = { driver: chosen.driver, image, limits: wish.limits, network: wish.network }
    const ready = this.pool.take(spec)
    if (ready !== undefined && (await this.#wake(ready))) {
      watch.lap('acquire')
      return { ...ready, chosen, image }
    }
    const made = await this.pool.wait(spec, signal)
    watch.lap('create')
    return { ...made, chosen, image }
  }

  /** False: it died in its sleep, and the request needs another. */
  async #wake(taken: TakenSandbox): Promise<boolean> {
    if (taken.thaw === null) return true
    try {
      await taken.thaw()
      return true
    } catch (error) {
      this.log.warn({ sandbox: taken.sandbox.id, err: error }, 'a warm sandbox did not wake')
      this.pool.reject(taken)
      return false
    }
  }
}
