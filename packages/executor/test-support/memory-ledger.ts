/** The ledger and log store ports in memory, for tests; also the model that the SQLite ledger is compared with. */
import type {
  ExecutionId, ExecutionQuery, ExecutionRecord, ExecutionSummary, IdempotencyEntry, InstanceId, InstanceRecord, KeyId, KeyRecord, Ledger, LogEntry,
  LogReader, LogStore, LogWriter, PrincipalId, UsageTotal, WriteOptions,
} from '@faas-platform/core'
import { summarise } from '../src/live-execution.js'

export class MemoryLedger implements Ledger {
  readonly executions = new Map<ExecutionId, ExecutionRecord>()
  readonly idempotency = new Map<string, IdempotencyEntry>()
  readonly instances = new Map<InstanceId, InstanceRecord>()
  readonly keys = new Map<KeyId, KeyRecord>()
  readonly usage = new Map<string, UsageTotal>()
  /** Set to make every write fail. */
  failure: Error | null = null
  /** Writes wait for it. */
  gate: Promise<void> = Promise.resolve()
  durableWrites = 0

  async insertExecution(record: ExecutionRecord, options: WriteOptions & { readonly idempotency?: IdempotencyEntry; readonly usage?: UsageTotal }): Promise<void> {
    await this.#write(options)
    if (this.executions.has(record.id)) throw new Error(`execution ${record.id} was inserted twice`)
    this.executions.set(record.id, structuredClone(record))
    if (options.idempotency !== undefined) this.idempotency.set(`${options.idempotency.principal}\n${options.idempotency.key}`, options.idempotency)
    if (options.usage !== undefined) this.#addUsage(options.usage)
  }

  async updateExecution(record: ExecutionRecord, fromIncarnation: number, options: WriteOptions & { readonly usage?: UsageTotal }): Promise<boolean> {
    await this.#write(options)
    if (this.executions.get(record.id)?.incarnation !== fromIncarnation) return false
    this.executions.set(record.id, structuredClone(record))
    if (options.usage !== undefined) this.#addUsage(options.usage)
    return true
  }

  async getExecution(id: ExecutionId): Promise<ExecutionRecord | null> {
    return structuredClone(this.executions.get(id) ?? null)
  }

  async listExecutions({ principal, states, instanceId, before, limit }: ExecutionQuery): Promise<readonly ExecutionSummary[]> {
    return [...this.executions.values()]
      .filter((record) => (principal === undefined || record.principal === principal) && (states === undefined || states.includes(record.state)))
      .filter((record) => (instanceId === undefined || record.instanceId === instanceId) && (before === undefined || newestFirst(before, record) < 0))
      .sort(newestFirst)
      .slice(0, limit)
      .map(summarise)
  }

  async unfinishedExecutions(limit: number): Promise<readonly ExecutionRecord[]> {
    return [...this.executions.values()].filter((record) => record.endedAtMs === null).sort((a, b) => a.createdAtMs - b.createdAtMs).slice(0, limit).map((record) => structuredClone(record))
  }

  async countUnfinished(): Promise<number> {
    return (await this.unfinishedExecutions(Infinity)).length
  }

  async pruneExecutions({ endedBeforeMs, countMax }: { readonly endedBeforeMs: number; readonly countMax: number }): Promise<readonly ExecutionId[]> {
    const ended = [...this.executions.values()].filter((record) => record.endedAtMs !== null).sort((a, b) => (a.endedAtMs ?? 0) - (b.endedAtMs ?? 0))
    const surplus = Math.max(0, this.executions.size - countMax)
    const gone = ended.filter((record, index) => index < surplus || (record.endedAtMs ?? 0) < endedBeforeMs).map((record) => record.id)
    for (const id of gone) {
      this.executions.delete(id)
      for (const [key, entry] of this.idempotency) if (entry.executionId === id) this.idempotency.delete(key)
    }
    return gone
  }

  async getIdempotency(principal: PrincipalId, key: string, nowMs: number): Promise<IdempotencyEntry | null> {
    const entry = this.idempotency.get(`${principal}\n${key}`)
    return entry !== undefined && entry.expiresAtMs > nowMs ? entry : null
  }

  async pruneIdempotency(nowMs: number): Promise<number> {
    let count = 0
    for (const [key, entry] of this.idempotency) {
      if (entry.expiresAtMs > nowMs) continue
      this.idempotency.delete(key)
      count++
    }
    return count
  }

  async putInstance(record: InstanceRecord, options: WriteOptions): Promise<void> {
    await this.#write(options)
    this.instances.set(record.id, record)
  }

  async listInstances(): Promise<readonly InstanceRecord[]> {
    return [...this.instances.values()]
  }

  async deleteInstance(id: InstanceId): Promise<void> {
    this.instances.delete(id)
  }

  async putKey(record: KeyRecord): Promise<void> {
    this.keys.set(record.id, record)
  }

  async findKey(hash: string): Promise<KeyRecord | null> {
    return [...this.keys.values()].find((key) => key.hash === hash) ?? null
  }

  async listKeys(): Promise<readonly KeyRecord[]> {
    return [...this.keys.values()].sort((a, b) => a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : 1))
  }

  async revokeKey(id: KeyId, atMs: number): Promise<boolean> {
    const key = this.keys.get(id)
    if (key === undefined) return false
    this.keys.set(id, { ...key, revokedAtMs: key.revokedAtMs ?? atMs })
    return true
  }

  async touchKey(id: KeyId, atMs: number): Promise<void> {
    const key = this.keys.get(id)
    if (key !== undefined) this.keys.set(id, { ...key, lastUsedAtMs: Math.max(key.lastUsedAtMs ?? 0, atMs) })
  }

  async usageTotals({ principal, fromDay, toDay }: { readonly principal?: PrincipalId; readonly fromDay: string; readonly toDay: string }): Promise<readonly UsageTotal[]> {
    return [...this.usage.values()]
      .filter((total) => total.day >= fromDay && total.day <= toDay && (principal === undefined || total.principal === principal))
      .sort((a, b) => (a.day + a.principal < b.day + b.principal ? -1 : 1))
  }

  async flush(): Promise<void> {
    await this.gate
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  async #write({ durable }: WriteOptions): Promise<void> {
    await this.gate
    if (this.failure !== null) throw this.failure
    if (durable) this.durableWrites++
  }

  #addUsage(usage: UsageTotal): void {
    const key = `${usage.day} ${usage.principal}`
    const known = this.usage.get(key)
    this.usage.set(key, known === undefined ? usage : {
      ...known, executions: known.executions + usage.executions, wallMs: known.wallMs + usage.wallMs, cpuMs: known.cpuMs + usage.cpuMs,
      memoryGibSeconds: known.memoryGibSeconds + usage.memoryGibSeconds, outputBytes: known.outputBytes + usage.outputBytes,
    })
  }
}

export class MemoryLogStore implements LogStore {
  readonly logs = new Map<ExecutionId, LogEntry[]>()
  failure: Error | null = null

  async create(id: ExecutionId): Promise<LogWriter> {
    const entries: LogEntry[] = []
    this.logs.set(id, entries)
    return {
      append: async (more) => {
        if (this.failure !== null) throw this.failure
        entries.push(...more)
      },
      close: async () => undefined,
    }
  }

  async open(id: ExecutionId, fromSeq: number): Promise<LogReader | null> {
    const entries = this.logs.get(id)
    if (entries === undefined) return null
    let at = entries.findIndex((entry) => entry.seq >= fromSeq)
    if (at === -1) at = entries.length
    return {
      read: async () => {
        const part = entries.slice(at, at + 8)
        at += part.length
        return part
      },
      close: async () => undefined,
    }
  }

  async remove(ids: readonly ExecutionId[]): Promise<void> {
    for (const id of ids) this.logs.delete(id)
  }

  async prune(): Promise<number> {
    return 0
  }
}

function newestFirst(a: { readonly createdAtMs: number; readonly id: string }, b: { readonly createdAtMs: number; readonly id: string }): number {
  return b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : a.id > b.id ? -1 : 0)
}
