/**
 * What is known about executions, past and present: single records, listings, and their events from any point on.
 * The overlay of live executions wins over the ledger, so that a result is there the moment it is answered.
 */
import {
  asId, FaasError, type ExecutionEvent, type ExecutionId, type ExecutionQuery, type ExecutionRecord, type ExecutionState, type ExecutionSummary, type Ledger,
  type LogEntry, type LogStore, type PrincipalId,
} from '@faas-platform/core'
import type { LiveExecution } from './live-execution.js'
import type { ListPage, ListQuery } from './types.js'

const PAGE_DEFAULT = 50
const PAGE_MAX = 1000

export class History {
  readonly live = new Map<ExecutionId, LiveExecution>()

  constructor(private readonly ledger: Ledger, private readonly logStore: LogStore) {}

  /** @throws FaasError `execution/not-found` */
  async get(id: ExecutionId, principal: PrincipalId | null): Promise<ExecutionRecord> {
    const record = this.live.get(id)?.record() ?? (await this.ledger.getExecution(id)) ?? this.live.get(id)?.record()
    if (record === undefined || (principal !== null && record.principal !== principal)) throw notFound(id)
    return record
  }

  async list(query: ListQuery, principal: PrincipalId | null): Promise<ListPage> {
    const limit = Math.min(PAGE_MAX, Math.max(1, query.limit ?? PAGE_DEFAULT))
    const wanted: ExecutionQuery = {
      ...(principal === null ? {} : { principal }),
      ...(query.states === undefined ? {} : { states: query.states }),
      ...(query.instanceId === undefined ? {} : { instanceId: query.instanceId }),
      ...(query.cursor === undefined ? {} : { before: parseCursor(query.cursor) }),
      limit: limit + 1,
    }
    const present = [...this.live.values()].map((live) => live.summary()).filter((summary) => matches(summary, wanted))
    const stored = await this.#stored(wanted)
    const page = [...present, ...stored].sort(newestFirst)
    const executions = page.slice(0, limit)
    const last = executions.at(-1)
    return { executions, nextCursor: page.length > limit && last !== undefined ? makeCursor(last) : null }
  }

  /** Replays from `fromSeq`, then follows to the end. Ends after the `end` event. */
  async *events(id: ExecutionId, principal: PrincipalId | null, fromSeq: number, signal: AbortSignal): AsyncGenerator<ExecutionEvent> {
    const live = this.live.get(id)
    if (live === undefined) {
      const record = await this.get(id, principal)
      const late = this.live.get(id)
      if (late === undefined) {
        yield* this.#storedEvents(record, fromSeq)
        return
      }
      yield* this.#liveEvents(late, fromSeq, signal)
      return
    }
    if (principal !== null && live.principal !== principal) throw notFound(id)
    yield* this.#liveEvents(live, fromSeq, signal)
  }

  async *#liveEvents(live: LiveExecution, fromSeq: number, signal: AbortSignal): AsyncGenerator<ExecutionEvent> {
    yield* live.log.read(fromSeq, signal)
    const result = await abortable(live.ended, signal)
    yield { type: 'end', seq: live.log.length, result, atMs: result.endedAtMs }
  }

  async *#storedEvents(record: ExecutionRecord, fromSeq: number): AsyncGenerator<ExecutionEvent> {
    let seq = 0
    for await (const entry of record.outline === null ? this.#fileEntries(record) : outlineEntries(record)) {
      seq = entry.seq + 1
      if (entry.seq >= fromSeq) yield entry
    }
    if (record.result !== null) yield { type: 'end', seq, result: record.result, atMs: record.result.endedAtMs }
  }

  /** From the full log; from what the result kept when the log is gone. */
  async *#fileEntries(record: ExecutionRecord): AsyncGenerator<LogEntry> {
    const reader = await this.logStore.open(record.id, 0)
    if (reader === null) {
      yield* keptEntries(record)
      return
    }
    try {
      for (let entries = await reader.read(); entries.length > 0; entries = await reader.read()) yield* entries
    } finally {
      await reader.close()
    }
  }

  /** A page from the ledger without what lives: as many as asked for, or all there are. */
  async #stored(query: ExecutionQuery): Promise<readonly ExecutionSummary[]> {
    const found: ExecutionSummary[] = []
    let before = query.before
    while (found.length < query.limit) {
      const page = await this.ledger.listExecutions({ ...query, ...(before === undefined ? {} : { before }) })
      for (const summary of page) if (!this.live.has(summary.id)) found.push(summary)
      const last = page.at(-1)
      if (page.length < query.limit || last === undefined) break
      before = { createdAtMs: last.createdAtMs, id: last.id }
    }
    return found
  }
}

export function notFound(id: ExecutionId): FaasError {
  return new FaasError('execution/not-found', { message: 'There is no such execution.', details: { id } })
}

/** The value, or the signal's reason, whichever comes first. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  let onAbort: () => void = () => undefined
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

function* outlineEntries({ outline, result }: ExecutionRecord): Generator<LogEntry> {
  const at = { stdout: 0, stderr: 0 }
  for (const [seq, [type, length, atMs]] of (outline ?? []).entries()) {
    if (type !== 'stdout' && type !== 'stderr') {
      yield { seq, type: 'state', state: type, atMs }
      continue
    }
    const bytes = result?.[type].bytes.subarray(at[type], at[type] + length) ?? new Uint8Array()
    at[type] += length
    yield { seq, type, bytes, atMs }
  }
}

function* keptEntries({ result }: ExecutionRecord): Generator<LogEntry> {
  if (result === null) return
  let seq = 0
  for (const type of ['stdout', 'stderr'] as const) {
    if (result[type].bytes.length > 0) yield { seq: seq++, type, bytes: result[type].bytes, atMs: result.endedAtMs }
  }
}

function matches(summary: ExecutionSummary, { principal, states, instanceId, before }: ExecutionQuery): boolean {
  return (principal === undefined || summary.principal === principal)
    && (states === undefined || states.includes(summary.state))
    && (instanceId === undefined || summary.instanceId === instanceId)
    && (before === undefined || newestFirst(before, summary) < 0)
}

function newestFirst(a: { readonly createdAtMs: number; readonly id: string }, b: { readonly createdAtMs: number; readonly id: string }): number {
  return b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0)
}

function makeCursor({ createdAtMs, id }: ExecutionSummary): string {
  return Buffer.from(`${createdAtMs} ${id}`).toString('base64url')
}

function parseCursor(cursor: string): { readonly createdAtMs: number; readonly id: ExecutionId } {
  const match = /^(\d{1,16}) ([\w-]{1,128})$/.exec(Buffer.from(cursor, 'base64url').toString('utf8'))
  if (match?.[1] === undefined || match[2] === undefined) throw new FaasError('request/invalid', { message: 'The cursor is not one that this gateway gave.', details: { issues: [{ path: 'cursor', message: 'malformed' }] } })
  return { createdAtMs: Number(match[1]), id: asId<ExecutionId>(match[2]) }
}

/** States that an execution ends in. */
export const FINAL_STATES: readonly ExecutionState[] = ['succeeded', 'failed', 'timed_out', 'cancelled']
