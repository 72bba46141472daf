import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import Sqlite from 'libsql'
import { asId, FaasError, silentLog, type ExecutionId, type InstanceId, type InstanceRecord, type KeyId, type KeyRecord, type Ledger, type PrincipalId } from '@faas-platform/core'
import { ended, record } from '../test-support/records.js'
import { openLedger } from './open-ledger.js'

let dataDir: string
let ledger: Ledger

beforeEach(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'faas-ledger-'))
  ledger = await openLedger({ dataDir, log: silentLog })
})

afterEach(async () => {
  await ledger[Symbol.asyncDispose]()
  await rm(dataDir, { recursive: true, force: true })
})

const ALICE = asId<PrincipalId>('alice')
const BOB = asId<PrincipalId>('bob')

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'it resolved', (error: unknown) => (error instanceof FaasError ? error.code : String(error)))
}

async function reopen(): Promise<void> {
  await ledger[Symbol.asyncDispose]()
  ledger = await openLedger({ dataDir, log: silentLog })
}

describe('an execution', () => {
  test('comes back exactly as it was stored, also after a restart', async () => {
    const queued = record('one', { idempotencyKey: 'k', requestHash: 'h' })
    await ledger.insertExecution(queued, { durable: true })
    expect(await ledger.getExecution(queued.id)).toEqual(queued)
    const done = ended(queued, 1_700_000_000_100)
    expect(await ledger.updateExecution(done, 0, { durable: true })).toBe(true)
    await reopen()
    expect(await ledger.getExecution(queued.id)).toEqual(done)
    expect(await ledger.getExecution(asId<ExecutionId>('none'))).toBeNull()
  })

  test('is only changed by who knows its incarnation', async () => {
    const queued = record('one')
    await ledger.insertExecution(queued, { durable: false })
    const done = ended(queued, 5)
    expect(await ledger.updateExecution(done, 7, { durable: false })).toBe(false)
    expect(await ledger.updateExecution(done, 0, { durable: false })).toBe(true)
    expect(await ledger.updateExecution({ ...done, state: 'failed' }, 0, { durable: false })).toBe(false)
    expect((await ledger.getExecution(queued.id))?.state).toBe('succeeded')
  })

  test('that is stored twice is refused, without harm to its neighbours in the transaction', async () => {
    await ledger.insertExecution(record('one'), { durable: true })
    const outcomes = await Promise.all([
      codeOf(ledger.insertExecution(record('two'), { durable: false })),
      codeOf(ledger.insertExecution(record('one'), { durable: false })),
      codeOf(ledger.insertExecution(record('three'), { durable: false })),
    ])
    expect(outcomes).toEqual(['it resolved', 'internal/bug', 'it resolved'])
    expect(await ledger.countUnfinished()).toBe(3)
  })

  test('is listed newest first, filtered and page by page', async () => {
    for (let n = 0; n < 6; n++) {
      const queued = record(`e${n}`, { createdAtMs: 1000 + Math.floor(n / 2), principal: n === 5 ? BOB : ALICE })
      await ledger.insertExecution(n % 2 === 0 ? queued : ended(queued, 2000), { durable: false })
    }
    const all = await ledger.listExecutions({ limit: 10 })
    expect(all.map((entry) => entry.id)).toEqual(['e5', 'e4', 'e3', 'e2', 'e1', 'e0'])
    expect(all[0]).toMatchObject({ runtime: 'runc', outcome: 'exited', exitCode: 0, labels: { team: 'x' }, argv: record('x').request.argv })
    expect(all[1]).toMatchObject({ runtime: null, outcome: null, exitCode: null })
    expect((await ledger.listExecutions({ principal: ALICE, limit: 10 })).map((entry) => entry.id)).not.toContain('e5')
    expect((await ledger.listExecutions({ states: ['queued'], limit: 10 })).map((entry) => entry.id)).toEqual(['e4', 'e2', 'e0'])
    const second = await ledger.listExecutions({ limit: 2, before: { createdAtMs: all[1]?.createdAtMs ?? 0, id: all[1]?.id ?? asId('none') } })
    expect(second.map((entry) => entry.id)).toEqual(['e3', 'e2'])
  })

  test('is pruned by age and by count, with its idempotency key, never while unfinished', async () => {
    await ledger.insertExecution(record('unfinished', { createdAtMs: 1 }), { durable: false })
    for (let n = 0; n < 5; n++) {
      const done = ended(record(`e${n}`, { idempotencyKey: `k${n}` }), 100 + n)
      await ledger.insertExecution(done, { durable: false, idempotency: { principal: ALICE, key: `k${n}`, requestHash: 'h', executionId: done.id, expiresAtMs: 1e15 } })
    }
    expect(await ledger.pruneExecutions({ endedBeforeMs: 102, countMax: 100 })).toEqual(['e0', 'e1'])
    expect(await ledger.getIdempotency(ALICE, 'k0', 0)).toBeNull()
    expect(await ledger.pruneExecutions({ endedBeforeMs: 0, countMax: 2 })).toEqual(['e2', 'e3'])
    expect((await ledger.listExecutions({ limit: 10 })).map((entry) => entry.id).sort()).toEqual(['e4', 'unfinished'])
  })

  test('that has not ended is found after a restart, oldest first', async () => {
    await ledger.insertExecution(record('young', { createdAtMs: 2 }), { durable: true })
    await ledger.insertExecution(record('old', { createdAtMs: 1 }), { durable: true })
    await ledger.insertExecution(ended(record('done'), 3), { durable: true })
    await reopen()
    expect((await ledger.unfinishedExecutions(10)).map((entry) => entry.id)).toEqual(['old', 'young'])
    expect(await ledger.unfinishedExecutions(1)).toHaveLength(1)
  })
})

describe('an idempotency key', () => {
  test('belongs to one principal and ends at its time', async () => {
    const entry = { principal: ALICE, key: 'k', requestHash: 'h', executionId: asId<ExecutionId>('one'), expiresAtMs: 1000 }
    await ledger.insertExecution(record('one'), { durable: true, idempotency: entry })
    expect(await ledger.getIdempotency(ALICE, 'k', 999)).toEqual(entry)
    expect(await ledger.getIdempotency(ALICE, 'k', 1000)).toBeNull()
    expect(await ledger.getIdempotency(BOB, 'k', 999)).toBeNull()
    expect(await ledger.pruneIdempotency(1000)).toBe(1)
  })
})

describe('an API key', () => {
  const key: KeyRecord = {
    id: asId<KeyId>('key-1'), name: 'ci', principal: ALICE, hash: 'abc', prefix: 'faas_12', scopes: ['execute', 'admin'], createdAtMs: 1,
    expiresAtMs: 99, revokedAtMs: null, lastUsedAtMs: null,
  }

  test('is found by its hash, used, revoked once and listed', async () => {
    await ledger.putKey(key)
    expect(await ledger.findKey('abc')).toEqual(key)
    expect(await ledger.findKey('abd')).toBeNull()
    await ledger.touchKey(key.id, 50)
    await ledger.touchKey(key.id, 40)
    expect(await ledger.revokeKey(key.id, 60)).toBe(true)
    expect(await ledger.revokeKey(key.id, 70)).toBe(true)
    expect(await ledger.revokeKey(asId<KeyId>('none'), 70)).toBe(false)
    await reopen()
    expect(await ledger.listKeys()).toEqual([{ ...key, lastUsedAtMs: 50, revokedAtMs: 60 }])
  })

  test('can be made beside the process that holds the data directory', async () => {
    const beside = await openLedger({ dataDir, log: silentLog, access: 'shared' })
    await beside.putKey(key)
    await beside[Symbol.asyncDispose]()
    expect(await ledger.findKey('abc')).toEqual(key)
  })
})

describe('usage', () => {
  test('adds up per principal and day', async () => {
    const usage = { principal: ALICE, day: '2026-03-02', executions: 1, wallMs: 10.5, cpuMs: 2, memoryGibSeconds: 0.25, outputBytes: 7 }
    await ledger.insertExecution(ended(record('one'), 1), { durable: false, usage })
    await ledger.insertExecution(ended(record('two'), 1), { durable: false, usage })
    await ledger.insertExecution(ended(record('three', { principal: BOB }), 1), { durable: false, usage: { ...usage, principal: BOB, day: '2026-03-03' } })
    expect(await ledger.usageTotals({ principal: ALICE, fromDay: '2026-03-01', toDay: '2026-03-31' })).toEqual([{ ...usage, executions: 2, wallMs: 21, cpuMs: 4, memoryGibSeconds: 0.5, outputBytes: 14 }])
    expect(await ledger.usageTotals({ fromDay: '2026-03-03', toDay: '2026-03-03' })).toHaveLength(1)
  })

  test('is not counted by a stale update', async () => {
    const usage = { principal: ALICE, day: '2026-03-02', executions: 1, wallMs: 1, cpuMs: 1, memoryGibSeconds: 1, outputBytes: 1 }
    await ledger.insertExecution(record('one'), { durable: false })
    await ledger.updateExecution(ended(record('one'), 1), 9, { durable: false, usage })
    expect(await ledger.usageTotals({ fromDay: '2026-03-02', toDay: '2026-03-02' })).toEqual([])
  })
})

describe('an instance', () => {
  test('is replaced by its id, listed and deleted', async () => {
    const instance: InstanceRecord = {
      id: asId<InstanceId>('i1'), principal: ALICE, name: 'dev', createdBy: null, state: 'running', incarnation: 1, message: null, runtime: 'runc',
      sandboxId: asId('s1'), image: { digest: asId(`sha256:${'0'.repeat(64)}`), reference: 'faas/base:latest', sizeBytes: 1, standIn: false, config: { env: {}, entrypoint: [], cmd: [], workingDir: '', user: '', labels: {} } },
      limits: record('x').request.limits, network: record('x').request.network, env: {}, labels: {}, createdAtMs: 1, lastUsedAtMs: 2, expiresAtMs: null, idleMsMax: 5,
    }
    await ledger.putInstance(instance, { durable: false })
    await ledger.putInstance({ ...instance, state: 'stopping', incarnation: 2 }, { durable: true })
    expect(await ledger.listInstances()).toEqual([{ ...instance, state: 'stopping', incarnation: 2 }])
    await ledger.deleteInstance(instance.id)
    expect(await ledger.listInstances()).toEqual([])
  })
})

describe('a data directory', () => {
  test('belongs to one process at a time', async () => {
    expect(await codeOf(openLedger({ dataDir, log: silentLog }))).toBe('store/locked')
    await reopen()
    expect(await codeOf(openLedger({ dataDir, log: silentLog }))).toBe('store/locked')
  })

  test('with a damaged ledger is refused, and unlocked again', async () => {
    const other = join(dataDir, 'other')
    const made = await openLedger({ dataDir: other, log: silentLog })
    await made[Symbol.asyncDispose]()
    await writeFile(join(other, 'ledger.sqlite'), 'this is not a database, and long enough to be looked at as one'.repeat(100))
    expect(await codeOf(openLedger({ dataDir: other, log: silentLog }))).toBe('store/corrupt')
    expect(await codeOf(openLedger({ dataDir: other, log: silentLog }))).toBe('store/corrupt')
  })

  test('from a newer program is refused', async () => {
    const other = join(dataDir, 'newer')
    await (await openLedger({ dataDir: other, log: silentLog }))[Symbol.asyncDispose]()
    const db = new Sqlite(join(other, 'ledger.sqlite'))
    db.exec('INSERT INTO schema_version (version, applied_ms) VALUES (9999, 0)')
    db.close()
    expect(await codeOf(openLedger({ dataDir: other, log: silentLog }))).toBe('store/corrupt')
  })

  test('whose ledger is closed answers store/unavailable', async () => {
    const other = await openLedger({ dataDir: join(dataDir, 'closed'), log: silentLog })
    await other[Symbol.asyncDispose]()
    await other[Symbol.asyncDispose]()
    expect(await codeOf(other.listKeys())).toBe('store/unavailable')
    expect(await codeOf(other.insertExecution(record('one'), { durable: false }))).toBe('store/unavailable')
  })
})

describe('writing', () => {
  test('flush resolves when everything asked for is stored', async () => {
    const writes = Array.from({ length: 1500 }, (_, n) => ledger.insertExecution(record(`e${n}`), { durable: false }))
    await ledger.flush()
    expect(await ledger.countUnfinished()).toBe(1500)
    await Promise.all(writes)
  })

  test('on a full disk is store/unavailable, and works again when there is room', async () => {
    const other = join(dataDir, 'full')
    await (await openLedger({ dataDir: other, log: silentLog }))[Symbol.asyncDispose]()
    const small = await openLedger({ dataDir: other, log: silentLog })
    // SQLite's own page limit stands in for the disk: the same SQLITE_FULL by the same path.
    const { database } = small as unknown as { readonly database: { rows(sql: string): readonly Record<string, unknown>[] } }
    database.rows('PRAGMA max_page_count=60')
    const big = (id: string): ReturnType<typeof record> => record(id, { request: { ...record(id).request, stdin: new Uint8Array(100_000) } })
    await small.insertExecution(big('fits'), { durable: true })
    const codes = await Promise.all(['a', 'b', 'c'].map((id) => codeOf(small.insertExecution(big(id), { durable: true }))))
    expect(codes).toEqual(['store/unavailable', 'store/unavailable', 'store/unavailable'])
    expect((await small.getExecution(asId<ExecutionId>('fits')))?.request.stdin?.length).toBe(100_000)
    database.rows('PRAGMA max_page_count=100000')
    await small.insertExecution(big('later'), { durable: true })
    await small[Symbol.asyncDispose]()
  })
})
