/**
 * One execution per idempotency key: the first request starts it, equal ones join it, others are refused.
 * Runs on their way are known here, finished ones in the ledger.
 */
import { FaasError, type Clock, type ExecutionId, type Ledger, type PrincipalId } from '@faas-platform/core'
import type { LiveExecution } from './live-execution.js'

interface KeyedRun {
  readonly hash: string
  /** Only an id when the execution ended and is known to the ledger alone. */
  readonly run: Promise<LiveExecution | ExecutionId>
}

export class KeyedRuns {
  readonly #runs = new Map<string, KeyedRun>()

  constructor(private readonly ledger: Ledger, private readonly clock: Clock, private readonly findLive: (id: ExecutionId) => LiveExecution | undefined) {}

  /** @throws FaasError `request/idempotency-conflict`, and what `start` throws */
  async join(principal: PrincipalId, key: string, hash: string, start: () => Promise<LiveExecution>): Promise<LiveExecution | ExecutionId> {
    const place = placeOf(principal, key)
    let entry = this.#runs.get(place)
    if (entry === undefined) {
      entry = { hash, run: this.#storedOrStarted(principal, key, hash, start) }
      this.#runs.set(place, entry)
      entry.run.catch(() => this.#runs.delete(place)) // The caller gets the failure; the key is free again.
    } else if (entry.hash !== hash) throw conflict()
    return entry.run
  }

  /** The execution ended and the ledger has what is to be known of it. */
  forget(live: LiveExecution): void {
    if (live.idempotencyKey !== null) this.#runs.delete(placeOf(live.principal, live.idempotencyKey))
  }

  async #storedOrStarted(principal: PrincipalId, key: string, hash: string, start: () => Promise<LiveExecution>): Promise<LiveExecution | ExecutionId> {
    const stored = await this.ledger.getIdempotency(principal, key, this.clock.nowMs())
    if (stored === null) return start()
    if (stored.requestHash !== hash) throw conflict()
    const live = this.findLive(stored.executionId)
    if (live === undefined) this.#runs.delete(placeOf(principal, key)) // The ledger answers the next one, too.
    return live ?? stored.executionId
  }
}

function placeOf(principal: PrincipalId, key: string): string {
  return `${principal}\n${key}`
}

function conflict(): FaasError {
  return new FaasError('request/idempotency-conflict', { message: 'The idempotency key was used before with another request.', hint: 'Use a new key for a new request.' })
}
