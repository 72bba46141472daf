import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { test } from 'vitest'
import { asId, silentLog, type ExecutionId, type ExecutionRecord, type ExecutionState, type ExecutionSummary, type KeyId, type Ledger, type PrincipalId } from '@faas-platform/core'
import { ended, record } from '../test-support/records.js'
import { openLedger } from './open-ledger.js'

/** What the ledger should hold. */
interface Model {
  readonly executions: Map<string, ExecutionRecord>
  readonly keys: Map<string, number | null>
}

interface Real {
  readonly dataDir: string
  ledger: Ledger
}

type Command = fc.AsyncCommand<Model, Real>

const ids = fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f')
const principals = fc.constantFrom('alice', 'bob')
const check = (condition: boolean, what: string): void => {
  if (!condition) throw new Error(what)
}
const same = (a: unknown, b: unknown, what: string): void => check(JSON.stringify(a) === JSON.stringify(b), `${what}: ${JSON.stringify(a)} is not ${JSON.stringify(b)}`)

const insert = fc.record({ id: ids, principal: principals, createdAtMs: fc.integer({ min: 0, max: 3 }), durable: fc.boolean() }).map((args): Command => ({
  check: () => true,
  async run(model, real) {
    const fresh = record(args.id, { principal: asId<PrincipalId>(args.principal), createdAtMs: args.createdAtMs })
    const refused = await real.ledger.insertExecution(fresh, { durable: args.durable }).then(() => false, () => true)
    check(refused === model.executions.has(args.id), 'only a new id can be inserted')
    if (!refused) model.executions.set(args.id, fresh)
  },
  toString: () => `insert ${JSON.stringify(args)}`,
}))

const update = fc.record({ id: ids, stale: fc.boolean(), finish: fc.boolean(), durable: fc.boolean() }).map((args): Command => ({
  check: () => true,
  async run(model, real) {
    const known = model.executions.get(args.id)
    const from = (known?.incarnation ?? 0) + (args.stale ? 1 : 0)
    const base = known ?? record(args.id)
    const next = args.finish ? ended(base, 50) : { ...base, incarnation: base.incarnation + 1, attempt: base.attempt + 1 }
    const done = await real.ledger.updateExecution(next, from, { durable: args.durable })
    check(done === (known !== undefined && !args.stale), 'only the current incarnation can be updated')
    if (done) model.executions.set(args.id, next)
  },
  toString: () => `update ${JSON.stringify(args)}`,
}))

const read = ids.map((id): Command => ({
  check: () => true,
  async run(model, real) {
    const stored = await real.ledger.getExecution(asId<ExecutionId>(id))
    same(stored?.state ?? null, model.executions.get(id)?.state ?? null, `state of ${id}`)
    same(stored?.incarnation ?? null, model.executions.get(id)?.incarnation ?? null, `incarnation of ${id}`)
    same(stored?.result?.stdout.bytes ?? null, model.executions.get(id)?.result?.stdout.bytes ?? null, `output of ${id}`)
  },
  toString: () => `read ${id}`,
}))

const list = fc.record({ principal: fc.option(principals, { nil: undefined }), state: fc.option(fc.constantFrom<ExecutionState>('queued', 'succeeded'), { nil: undefined }), limit: fc.integer({ min: 1, max: 4 }) }).map((args): Command => ({
  check: () => true,
  async run(model, real) {
    const expected = [...model.executions.values()]
      .filter((entry) => (args.principal === undefined || entry.principal === args.principal) && (args.state === undefined || entry.state === args.state))
      .sort((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? 1 : -1))
      .map((entry) => entry.id)
    const seen: string[] = []
    let last: ExecutionSummary | undefined
    for (;;) {
      const page = await real.ledger.listExecutions({
        limit: args.limit,
        ...(args.principal === undefined ? {} : { principal: asId<PrincipalId>(args.principal) }),
        ...(args.state === undefined ? {} : { states: [args.state] }),
        ...(last === undefined ? {} : { before: { createdAtMs: last.createdAtMs, id: last.id } }),
      })
      seen.push(...page.map((entry) => entry.id))
      last = page.at(-1)
      if (last === undefined) break
    }
    same(seen, expected, 'the pages')
  },
  toString: () => `list ${JSON.stringify(args)}`,
}))

const prune = fc.record({ countMax: fc.integer({ min: 0, max: 6 }) }).map((args): Command => ({
  check: () => true,
  async run(model, real) {
    const gone = await real.ledger.pruneExecutions({ endedBeforeMs: 0, countMax: args.countMax })
    const finished = [...model.executions.values()].filter((entry) => entry.endedAtMs !== null).length
    check(gone.length === Math.min(finished, Math.max(0, model.executions.size - args.countMax)), 'prune removes the surplus of finished ones')
    for (const id of gone) {
      check(model.executions.get(id)?.endedAtMs !== null, 'only finished ones are pruned')
      model.executions.delete(id)
    }
  },
  toString: () => `prune ${JSON.stringify(args)}`,
}))

const keys = fc.record({ id: fc.constantFrom('k1', 'k2'), revokeAtMs: fc.option(fc.integer({ min: 1, max: 9 }), { nil: null }) }).map((args): Command => ({
  check: () => true,
  async run(model, real) {
    const id = asId<KeyId>(args.id)
    if (args.revokeAtMs === null) {
      await real.ledger.putKey({ id, name: 'n', principal: asId<PrincipalId>('alice'), hash: args.id, prefix: 'p', scopes: [], createdAtMs: 1, expiresAtMs: null, revokedAtMs: null, lastUsedAtMs: null })
      model.keys.set(args.id, null)
    } else {
      check((await real.ledger.revokeKey(id, args.revokeAtMs)) === model.keys.has(args.id), 'only a known key is revoked')
      if (model.keys.has(args.id)) model.keys.set(args.id, model.keys.get(args.id) ?? args.revokeAtMs)
    }
    same((await real.ledger.findKey(args.id))?.revokedAtMs ?? null, model.keys.get(args.id) ?? null, 'revocation')
  },
  toString: () => `key ${JSON.stringify(args)}`,
}))

const reopen = fc.constant<Command>({
  check: () => true,
  async run(_model, real) {
    await real.ledger[Symbol.asyncDispose]()
    real.ledger = await openLedger({ dataDir: real.dataDir, log: silentLog })
  },
  toString: () => 'reopen',
})

test('the ledger behaves like its model, whatever is done to it in whatever order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.commands([insert, update, read, list, prune, keys, reopen], { maxCommands: 40 }), async (commands) => {
      const dataDir = await mkdtemp(join(tmpdir(), 'faas-ledger-prop-'))
      const real: Real = { dataDir, ledger: await openLedger({ dataDir, log: silentLog }) }
      try {
        await fc.asyncModelRun(() => ({ model: { executions: new Map(), keys: new Map() }, real }), commands)
      } finally {
        await real.ledger[Symbol.asyncDispose]()
        await rm(dataDir, { recursive: true, force: true })
      }
    }),
    { numRuns: 60 },
  )
}, 120_000)
