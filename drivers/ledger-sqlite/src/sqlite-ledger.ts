/** The ledger over one SQLite database. */
import type {
  ExecutionId, ExecutionQuery, ExecutionRecord, ExecutionSummary, IdempotencyEntry, InstanceId, InstanceRecord, KeyId, KeyRecord, Ledger,
  PrincipalId, UsageTotal, WriteOptions,
} from '@faas-platform/core'
import { asId } from '@faas-platform/core'
import type { Database } from './database.js'
import {
  executionCells, executionOf, idempotencyOf, instanceOf, keyCells, keyOf, number, SUMMARY_COLUMNS, summaryOf, text, usageOf, type Cell,
} from './rows.js'

const EXECUTION_COLUMNS = 'id, principal, kind, state, incarnation, attempt, request, stdin, result, stdout, stderr, outline, idempotency_key, request_hash, instance_id, created_ms, started_ms, ended_ms'
const PRUNE_MAX = 1_000

export class SqliteLedger implements Ledger {
  /** `release` ends the claim on the data directory. */
  constructor(private readonly database: Database, private readonly release: () => void) {}

  insertExecution(record: ExecutionRecord, { durable, idempotency, usage }: WriteOptions & { readonly idempotency?: IdempotencyEntry; readonly usage?: UsageTotal }): Promise<void> {
    return this.database.write({ durable }, (database) => {
      database.change(`INSERT INTO executions (${EXECUTION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, ...executionCells(record))
      if (idempotency !== undefined) {
        // An expired entry gives way; a valid one never meets a second insert, because the executor asked first.
        database.change('INSERT OR REPLACE INTO idempotency (principal, key, request_hash, execution_id, expires_ms) VALUES (?, ?, ?, ?, ?)', idempotency.principal, idempotency.key, idempotency.requestHash, idempotency.executionId, idempotency.expiresAtMs)
      }
      if (usage !== undefined) addUsage(database, usage)
    })
  }

  updateExecution(record: ExecutionRecord, fromIncarnation: number, { durable, usage }: WriteOptions & { readonly usage?: UsageTotal }): Promise<boolean> {
    return this.database.write({ durable }, (database) => {
      const [id, , , ...cells] = executionCells(record)
      const changed = database.change(
        `UPDATE executions SET state = ?, incarnation = ?, attempt = ?, request = ?, stdin = ?, result = ?, stdout = ?, stderr = ?, outline = ?,
         idempotency_key = ?, request_hash = ?, instance_id = ?, created_ms = ?, started_ms = ?, ended_ms = ? WHERE id = ? AND incarnation = ?`,
        ...cells, id ?? null, fromIncarnation,
      )
      if (changed === 1 && usage !== undefined) addUsage(database, usage)
      return changed === 1
    })
  }

  getExecution(id: ExecutionId): Promise<ExecutionRecord | null> {
    return attempt(() => {
      const row = this.database.row('SELECT * FROM executions WHERE id = ?', id)
      return row === null ? null : executionOf(row)
    })
  }

  listExecutions({ principal, states, instanceId, before, limit }: ExecutionQuery): Promise<readonly ExecutionSummary[]> {
    return attempt(() => {
      const where: string[] = []
      const cells: Cell[] = []
      const add = (condition: string, ...values: readonly Cell[]): void => {
        where.push(condition)
        cells.push(...values)
      }
      if (principal !== undefined) add('principal = ?', principal)
      if (instanceId !== undefined) add('instance_id = ?', instanceId)
      if (states !== undefined) add(`state IN (${states.map(() => '?').join() || 'NULL'})`, ...states)
      if (before !== undefined) add('(created_ms, id) < (?, ?)', before.createdAtMs, before.id)
      const condition = where.length === 0 ? '' : `WHERE ${where.join(' AND ')}`
      return this.database.rows(`SELECT ${SUMMARY_COLUMNS} FROM executions ${condition} ORDER BY created_ms DESC, id DESC LIMIT ?`, ...cells, limit).map(summaryOf)
    })
  }

  unfinishedExecutions(limit: number): Promise<readonly ExecutionRecord[]> {
    return attempt(() => this.database.rows('SELECT * FROM executions WHERE ended_ms IS NULL ORDER BY created_ms LIMIT ?', limit).map(executionOf))
  }

  countUnfinished(): Promise<number> {
    return attempt(() => {
      const row = this.database.row('SELECT count(*) AS count FROM executions WHERE ended_ms IS NULL')
      return row === null ? 0 : number(row, 'count')
    })
  }

  pruneExecutions({ endedBeforeMs, countMax }: { readonly endedBeforeMs: number; readonly countMax: number }): Promise<readonly ExecutionId[]> {
    return this.database.write({ durable: false }, (database) => {
      const total = database.row('SELECT count(*) AS count FROM executions')
      const surplus = Math.min(PRUNE_MAX, Math.max(0, (total === null ? 0 : number(total, 'count')) - countMax))
      const old = database.rows('SELECT id FROM executions WHERE ended_ms < ? ORDER BY ended_ms LIMIT ?', endedBeforeMs, PRUNE_MAX)
      const over = surplus === 0 ? [] : database.rows('SELECT id FROM executions WHERE ended_ms IS NOT NULL ORDER BY ended_ms LIMIT ?', surplus)
      const ids = new Set([...old, ...over].map((row) => text(row, 'id')))
      for (const id of ids) {
        database.change('DELETE FROM executions WHERE id = ?', id)
        database.change('DELETE FROM idempotency WHERE execution_id = ?', id)
      }
      return [...ids].map((id) => asId<ExecutionId>(id))
    })
  }

  getIdempotency(principal: PrincipalId, key: string, nowMs: number): Promise<IdempotencyEntry | null> {
    return attempt(() => {
      const row = this.database.row('SELECT * FROM idempotency WHERE principal = ? AND key = ? AND expires_ms > ?', principal, key, nowMs)
      return row === null ? null : idempotencyOf(row)
    })
  }

  pruneIdempotency(nowMs: number): Promise<number> {
    return this.database.write({ durable: false }, (database) => database.change('DELETE FROM idempotency WHERE expires_ms <= ?', nowMs))
  }

  putInstance(record: InstanceRecord, { durable }: WriteOptions): Promise<void> {
    return this.database.write({ durable }, (database) => {
      database.change('INSERT OR REPLACE INTO instances (id, principal, state, incarnation, record) VALUES (?, ?, ?, ?, ?)', record.id, record.principal, record.state, record.incarnation, JSON.stringify(record))
    })
  }

  listInstances(): Promise<readonly InstanceRecord[]> {
    return attempt(() => this.database.rows('SELECT record FROM instances').map(instanceOf))
  }

  deleteInstance(id: InstanceId): Promise<void> {
    return this.database.write({ durable: false }, (database) => {
      database.change('DELETE FROM instances WHERE id = ?', id)
    })
  }

  putKey(record: KeyRecord): Promise<void> {
    return this.database.write({ durable: true }, (database) => {
      database.change('INSERT OR REPLACE INTO api_keys (id, name, principal, hash, prefix, scopes, created_ms, expires_ms, revoked_ms, last_used_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)', ...keyCells(record))
    })
  }

  findKey(hash: string): Promise<KeyRecord | null> {
    return attempt(() => {
      const row = this.database.row('SELECT * FROM api_keys WHERE hash = ?', hash)
      return row === null ? null : keyOf(row)
    })
  }

  listKeys(): Promise<readonly KeyRecord[]> {
    return attempt(() => this.database.rows('SELECT * FROM api_keys ORDER BY created_ms, id').map(keyOf))
  }

  revokeKey(id: KeyId, atMs: number): Promise<boolean> {
    return this.database.write({ durable: true }, (database) => database.change('UPDATE api_keys SET revoked_ms = coalesce(revoked_ms, ?) WHERE id = ?', atMs, id) === 1)
  }

  touchKey(id: KeyId, atMs: number): Promise<void> {
    return this.database.write({ durable: false }, (database) => {
      database.change('UPDATE api_keys SET last_used_ms = max(coalesce(last_used_ms, 0), ?) WHERE id = ?', atMs, id)
    })
  }

  usageTotals({ principal, fromDay, toDay }: { readonly principal?: PrincipalId; readonly fromDay: string; readonly toDay: string }): Promise<readonly UsageTotal[]> {
    return attempt(() => {
      const sql = `SELECT * FROM usage_totals WHERE day >= ? AND day <= ? ${principal === undefined ? '' : 'AND principal = ?'} ORDER BY day, principal`
      return this.database.rows(sql, fromDay, toDay, ...(principal === undefined ? [] : [principal])).map(usageOf)
    })
  }

  flush(): Promise<void> {
    return this.database.flush()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return attempt(() => {
      this.database.close()
      this.release()
    })
  }
}

function addUsage(database: Database, usage: UsageTotal): void {
  database.change(
    `INSERT INTO usage_totals (principal, day, executions, wall_ms, cpu_ms, memory_gib_seconds, output_bytes) VALUES (?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT (principal, day) DO UPDATE SET executions = executions + excluded.executions, wall_ms = wall_ms + excluded.wall_ms,
     cpu_ms = cpu_ms + excluded.cpu_ms, memory_gib_seconds = memory_gib_seconds + excluded.memory_gib_seconds, output_bytes = output_bytes + excluded.output_bytes`,
    usage.principal, usage.day, usage.executions, usage.wallMs, usage.cpuMs, usage.memoryGibSeconds, usage.outputBytes,
  )
}

/** The database answers at once; the port promises. */
function attempt<T>(answer: () => T): Promise<T> {
  return new Promise((resolve) => resolve(answer()))
}
