import { silentLog, systemIds } from '@faas-platform/core'
import { openLedger } from '@faas-platform/ledger-sqlite'
import { FakeClock } from '@faas-platform/testkit'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createKey, KeyRing, revokeKey } from './keys.js'

let dataDir: string
beforeEach(async () => void (dataDir = await mkdtemp(join(tmpdir(), 'faas-keys-test-'))))
afterEach(() => rm(dataDir, { recursive: true, force: true }))

describe('a key that another process revokes', () => {
  it('is refused by a running gateway within a second', async () => {
    const clock = new FakeClock()
    await using ledger = await openLedger({ dataDir, log: silentLog })
    const ring = new KeyRing(ledger, clock, (error) => expect.unreachable(String(error)))
    const { key, record } = await createKey(ledger, { name: 'ci', scopes: ['execute'] }, { clock, ids: systemIds })
    expect((await ring.find(key))?.id).toBe(record.id)

    // As `faas keys revoke` does it, beside the gateway.
    const beside = await openLedger({ dataDir, log: silentLog, access: 'shared' })
    await revokeKey(beside, record.id, clock.nowMs())
    await beside[Symbol.asyncDispose]()

    await clock.advance(1000)
    expect(await ring.find(key)).toBeNull()
  })

  it('works at once when another process makes it', async () => {
    const clock = new FakeClock()
    await using ledger = await openLedger({ dataDir, log: silentLog })
    const ring = new KeyRing(ledger, clock, (error) => expect.unreachable(String(error)))
    const beside = await openLedger({ dataDir, log: silentLog, access: 'shared' })
    const { key, record } = await createKey(beside, { name: 'ci', scopes: ['execute'] }, { clock, ids: systemIds })
    await beside[Symbol.asyncDispose]()
    expect((await ring.find(key))?.id).toBe(record.id)
  })
})
