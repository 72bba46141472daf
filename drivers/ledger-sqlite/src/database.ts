/**
 * One SQLite connection: open, check, migrate, and write in groups.
 *
 * I1. Writes that are asked for within a few milliseconds share one transaction. A durable one is not held back:
 *     it takes the others that wait along and is on disk (`synchronous=FULL`) when its promise resolves.
 * I2. A statement that fails undoes itself only; a transaction that fails rejects everything in it.
 * I3. Migrations run in order, each in its own transaction; a schema newer than this program is refused.
 */
import Sqlite from 'libsql'
import { FaasError, type LogSink } from '@faas-platform/core'
import { translate } from './errors.js'
import { MIGRATIONS } from './migrations.js'
import { number, text, type Cell, type Row } from './rows.js'

type Statement = ReturnType<InstanceType<typeof Sqlite>['prepare']>

interface Write {
  readonly durable: boolean
  readonly apply: (database: Database) => unknown
  readonly resolve: (value: unknown) => void
  readonly reject: (error: FaasError) => void
}

/** How long a write that needs no disk sync may wait for company. */
const GROUP_MS = 4
const GROUP_MAX = 512
const BUSY_TIMEOUT_MS = 5_000
/** Checkpoints belong into quiet moments; this bounds the log of a moment that never gets quiet. */
const CHECKPOINT_PAGES_MAX = 8_192
const QUIET_MS = 1_000

export class Database {
  readonly #db: InstanceType<typeof Sqlite>
  readonly #statements = new Map<string, Statement>()
  #queue: Write[] = []
  #timer: NodeJS.Timeout | null = null
  #immediate: NodeJS.Immediate | null = null
  #quiet: NodeJS.Timeout | null = null
  #idle: (() => void)[] = []
  #open = true

  constructor(path: string, private readonly log: LogSink) {
    try {
      this.#db = new Sqlite(path)
      this.#db.exec(`PRAGMA busy_timeout=${BUSY_TIMEOUT_MS}; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=${CHECKPOINT_PAGES_MAX}; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY`)
      this.#check()
      this.#migrate()
    } catch (error) {
      throw translate(error)
    }
  }

  get pending(): number {
    return this.#queue.length
  }

  rows(sql: string, ...cells: readonly Cell[]): readonly Row[] {
    this.#checkOpen()
    try {
      return this.#prepare(sql).all([...cells]) as Row[]
    } catch (error) {
      throw translate(error)
    }
  }

  row(sql: string, ...cells: readonly Cell[]): Row | null {
    return this.rows(sql, ...cells)[0] ?? null
  }

  /** Only inside a write. Returns how many rows it changed. */
  change(sql: string, ...cells: readonly Cell[]): number {
    return this.#prepare(sql).run([...cells]).changes
  }

  /** Resolves with what `apply` returned when the transaction is committed. `apply` may run statements only. */
  write<T>(options: { readonly durable: boolean }, apply: (database: Database) => T): Promise<T> {
    return new Promise<unknown>((resolve, reject) => {
      if (!this.#open) {
        reject(closed())
        return
      }
      this.#queue.push({ durable: options.durable, apply, resolve, reject })
      if (options.durable || this.#queue.length >= GROUP_MAX) this.#immediate ??= setImmediate(() => this.#commit())
      else this.#timer ??= setTimeout(() => this.#commit(), GROUP_MS)
    }) as Promise<T>
  }

  /** Resolves when nothing waits to be written. */
  flush(): Promise<void> {
    if (this.#queue.length === 0) return Promise.resolve()
    return new Promise((resolve) => this.#idle.push(resolve))
  }

  close(): void {
    if (!this.#open) return
    while (this.#queue.length > 0) this.#commit()
    this.#open = false
    this.#clearTimers()
    if (this.#quiet !== null) clearTimeout(this.#quiet)
    try {
      this.#db.exec('PRAGMA wal_checkpoint(TRUNCATE)')
    } catch (error) {
      this.log.warn({ err: error }, 'the last checkpoint of the ledger failed; its log is read at the next start')
    }
    this.#statements.clear()
    this.#db.close()
  }

  #commit(): void {
    this.#clearTimers()
    const group = this.#queue.splice(0, GROUP_MAX)
    if (group.length === 0) return
    const settle: (() => void)[] = []
    try {
      const durable = group.some((write) => write.durable)
      if (durable) this.#db.exec('PRAGMA synchronous=FULL') // I1
      try {
        this.change('BEGIN IMMEDIATE')
        for (const write of group) this.#applyOne(write, settle)
        this.change('COMMIT')
      } finally {
        if (durable) this.#db.exec('PRAGMA synchronous=NORMAL')
      }
      for (const done of settle) done()
    } catch (error) {
      const translated = translate(error)
      this.#rollback()
      for (const write of group) write.reject(translated) // I2
      this.log.error({ writes: group.length, err: error }, 'a transaction of the ledger failed')
    }
    if (this.#queue.length > 0) {
      this.#immediate = setImmediate(() => this.#commit())
      return
    }
    for (const resolve of this.#idle.splice(0)) resolve()
    this.#checkpointWhenQuiet()
  }

  #applyOne(write: Write, settle: (() => void)[]): void {
    try {
      this.change('SAVEPOINT one')
      const value = write.apply(this)
      this.change('RELEASE one')
      settle.push(() => write.resolve(value))
    } catch (error) {
      const translated = translate(error)
      if (translated.code !== 'internal/bug') throw error // The disk or the file: the whole transaction is in doubt.
      this.change('ROLLBACK TO one')
      this.change('RELEASE one')
      settle.push(() => write.reject(translated)) // I2
    }
  }

  #rollback(): void {
    try {
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK')
    } catch (error) {
      this.log.error({ err: error }, 'a failed transaction could not be undone')
    }
  }

  #checkpointWhenQuiet(): void {
    if (this.#quiet !== null) clearTimeout(this.#quiet)
    this.#quiet = setTimeout(() => {
      this.#quiet = null
      try {
        this.#db.exec('PRAGMA wal_checkpoint(PASSIVE)')
      } catch (error) {
        this.log.warn({ err: error }, 'a checkpoint of the ledger failed; it will be tried again')
      }
    }, QUIET_MS)
    this.#quiet.unref()
  }

  #clearTimers(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    if (this.#immediate !== null) clearImmediate(this.#immediate)
    this.#timer = null
    this.#immediate = null
  }

  #check(): void {
    const found = this.#prepare('PRAGMA quick_check(1)').all([]) as Row[]
    const verdict = found[0] === undefined ? '' : text(found[0], 'quick_check')
    if (verdict !== 'ok') {
      throw new FaasError('store/corrupt', { message: 'The ledger failed its check.', hint: 'Move ledger.sqlite away to start with an empty ledger, or restore it from a backup.', details: { verdict } })
    }
  }

  #migrate(): void {
    this.#db.exec('CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, applied_ms REAL NOT NULL)')
    const current = number(this.#prepare('SELECT coalesce(max(version), 0) AS version FROM schema_version').all([])[0] as Row, 'version')
    const newest = MIGRATIONS.at(-1)?.version ?? 0
    if (current > newest) { // I3
      throw new FaasError('store/corrupt', { message: `The ledger has schema ${current}; this program knows ${newest}.`, hint: 'Use the newer program that wrote it.' })
    }
    for (const { version, sql } of MIGRATIONS) {
      if (version <= current) continue
      this.#db.exec('BEGIN IMMEDIATE')
      try {
        this.#db.exec(sql)
        this.change('INSERT INTO schema_version (version, applied_ms) VALUES (?, ?)', version, Date.now())
        this.#db.exec('COMMIT')
      } catch (error) {
        this.#rollback()
        throw error
      }
      this.log.info({ version }, 'ledger migrated')
    }
  }

  #prepare(sql: string): Statement {
    let statement = this.#statements.get(sql)
    if (statement === undefined) {
      statement = this.#db.prepare(sql)
      this.#statements.set(sql, statement)
    }
    return statement
  }

  #checkOpen(): void {
    if (!this.#open) throw closed()
  }
}

function closed(): FaasError {
  return new FaasError('store/unavailable', { message: 'The ledger is closed.' })
}
