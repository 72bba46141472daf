/**
 * Ends sandboxes in the background, so that teardown never delays a reply.
 *
 * I1. At most `concurrencyMax` disposals run at once.
 * I2. A disposal that fails is tried again; after `attemptsMax` it is counted and left for the next start to reclaim.
 * I3. `idle` resolves when nothing is left to do.
 */
import type { Clock, LogSink } from '@faas-platform/core'
import type { TeardownConfig } from './config.js'

export interface DisposerCounts {
  disposed: number
  failed: number
  retried: number
}

interface Job {
  readonly what: string
  readonly dispose: () => PromiseLike<unknown>
  readonly done: () => void
  attempt: number
}

export class Disposer {
  readonly counts: DisposerCounts = { disposed: 0, failed: 0, retried: 0 }
  readonly #queue: Job[] = []
  #active = 0
  #waitingRetry = 0
  #scheduled = false
  #idle: (() => void)[] = []

  constructor(private readonly config: TeardownConfig, private readonly clock: Clock, private readonly log: LogSink) {}

  /** Disposals that are queued, running, or waiting for another attempt. */
  get backlog(): number {
    return this.#queue.length + this.#active + this.#waitingRetry
  }

  get overloaded(): boolean {
    return this.backlog > this.config.backlogMax
  }

  /** Resolves when it is gone, or given up. Never rejects. */
  push(what: string, dispose: () => PromiseLike<unknown>): Promise<void> {
    return new Promise((done) => {
      this.#queue.push({ what, dispose, done, attempt: 1 })
      this.#pumpSoon()
    })
  }

  idle(): Promise<void> {
    if (this.backlog === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  /** The first steps of a disposal are work, too: the reply that is about to be written goes first. */
  #pumpSoon(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#pump()
    })
  }

  #pump(): void {
    while (this.#active < this.config.concurrencyMax) { // I1
      const job = this.#queue.shift()
      if (job === undefined) break
      this.#active++
      void this.#run(job)
    }
    if (this.backlog > 0) return
    for (const resolve of this.#idle.splice(0)) resolve() // I3
  }

  async #run(job: Job): Promise<void> {
    try {
      await job.dispose()
      this.counts.disposed++
      job.done()
    } catch (error) {
      this.#failed(job, error)
    } finally {
      this.#active--
      this.#pump()
    }
  }

  #failed(job: Job, error: unknown): void {
    if (job.attempt >= this.config.attemptsMax) { // I2
      this.counts.failed++
      this.log.error({ what: job.what, attempts: job.attempt, err: error }, 'teardown failed; the next start reclaims what is left')
      job.done()
      return
    }
    this.counts.retried++
    this.log.warn({ what: job.what, attempt: job.attempt, err: error }, 'teardown failed; it will be tried again')
    job.attempt++
    this.#waitingRetry++
    void this.clock.delay(this.config.retryMs * job.attempt).then(() => {
      this.#waitingRetry--
      this.#queue.push(job)
      this.#pump()
    })
  }
}
