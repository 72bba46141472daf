import { MIB } from '@faas-platform/core'
import { afterEach, describe, expect, test } from 'vitest'
import { EngineClient } from './engine-client.js'
import { shape } from './engine-shape.js'
import { realDriver, sh, type RealDriver } from './testing/real-driver.js'

const signal = AbortSignal.timeout(300_000)
let real: RealDriver | undefined

afterEach(async () => {
  await real?.[Symbol.asyncDispose]()
  real = undefined
})

describe.each(['attach', 'volume'] as const)('an engine that is reached by %s only', (agentDelivery) => {
  test('runs commands, moves bytes, and tells the end of a sandbox as one on this host does', async () => {
    real = await realDriver({ agentDelivery })
    const report = await real.driver.probe(signal)
    expect(report.usable).toBe(true)
    expect(report.facts.find(({ name }) => name === 'agent')?.evidence).toContain(agentDelivery === 'volume' ? '(volume, attach)' : '(bind, attach)')
    const sandbox = await real.driver.create(real.spec({ limits: { memoryBytes: 64 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB } }), { signal })
    expect(Object.keys(sandbox.timeBudget)).toContain('engine_attach')
    const ran = await sh(sandbox, 'echo out; echo err >&2; touch /.faas/agent || echo read-only; exit 7')
    expect(ran).toMatchObject({ stdout: 'out\nread-only\n', exit: { exitCode: 7 } })
    const flood = await sh(sandbox, 'dd if=/dev/zero bs=1M count=20 2>/dev/null | tr "\\0" x')
    expect(flood.stdout.length).toBe(20 * MIB)
    await sh(sandbox, 'dd if=/dev/zero of=/file bs=1M count=5 2>/dev/null')
    const stats = await sandbox.stats()
    expect(stats.writableBytes).toBeGreaterThanOrEqual(5 * MIB)
    expect(stats.cpuMs).toBeGreaterThan(0)
    expect(stats.pids).toBe(1)
    const bomb = await sh(sandbox, 'exec tail /dev/zero')
    expect(bomb.exit).toMatchObject({ signal: 'SIGKILL', oomKilled: true })
    await sandbox[Symbol.asyncDispose]()
    expect(await real.driver.list(signal)).toEqual([])
  })
})

test('the volume that holds the agent is reclaimed', async () => {
  real = await realDriver({ agentDelivery: 'volume' })
  const sandbox = await real.driver.create(real.spec(), { signal })
  await sandbox[Symbol.asyncDispose]()
  await real.driver[Symbol.asyncDispose]()
  const client = new EngineClient({ socketPath: real.options.socketPath })
  const left = shape(await client.json({ path: '/volumes', query: { filters: JSON.stringify({ name: [`faas-${real.options.dataDirId}`] }) } }), 'volumes')
  expect(left['Volumes'] ?? []).toEqual([])
  client.close()
})
