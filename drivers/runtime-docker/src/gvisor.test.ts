import { isFaasError, MIB } from '@faas-platform/core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { EngineClient } from './engine-client.js'
import { shape, sub } from './engine-shape.js'
import { realDriver, sh, type RealDriver } from './testing/real-driver.js'

const signal = AbortSignal.timeout(300_000)
let real: RealDriver

beforeAll(async () => {
  real = await realDriver({ runtime: 'runsc' })
  const client = new EngineClient({ socketPath: real.options.socketPath })
  const runtimes = Object.keys(sub(shape(await client.json({ path: '/info' }), 'info'), 'Runtimes'))
  client.close()
  expect(runtimes, 'the engine of the tests is set up with gVisor').toContain('runsc')
})

afterAll(async () => {
  await real[Symbol.asyncDispose]()
})

test('an engine with gVisor gives sandboxes a kernel of their own', async () => {
  expect(real.driver.features).toMatchObject({ isolation: 'kernel', retain: false })
  const report = await real.driver.probe(signal)
  expect(report.usable).toBe(true)
  expect(report.facts.find(({ name }) => name === 'agent')?.evidence).toContain('attach')
  await using sandbox = await real.driver.create(real.spec(), { signal })
  expect((await sh(sandbox, 'dmesg | head -1')).stdout).toContain('Starting gVisor')
  await sh(sandbox, 'dd if=/dev/zero of=/file bs=1M count=5 2>/dev/null')
  const stats = await sandbox.stats()
  expect(stats.writableBytes).toBeLessThan(64 * MIB)
  expect(stats.cpuMs).toBeGreaterThan(0)
  await sandbox.pause()
  await sandbox.resume()
  expect((await sh(sandbox, 'echo back')).stdout).toBe('back\n')
  expect(await sandbox.capability('retain')).toMatchObject({ can: false })
  const refused = await sandbox.retain().catch((error: unknown) => error)
  expect(isFaasError(refused, 'runtime/unsupported')).toBe(true)
  expect((await sh(sandbox, 'echo alive')).stdout).toBe('alive\n')
})

test('a runtime that the engine does not have makes the driver unusable, by name', async () => {
  await using other = await realDriver({ runtime: 'no-such-runtime' })
  const report = await other.driver.probe(signal)
  expect(report.usable).toBe(false)
  expect(JSON.stringify(report)).toContain('no-such-runtime')
})
