import { isFaasError } from '@faas-platform/core'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ownEngine, type OwnEngine } from './testing/own-engine.js'
import { realDriver, sh, type RealDriver } from './testing/real-driver.js'

const signal = AbortSignal.timeout(300_000)

async function thrown(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  )
}

describe('an engine that goes away', () => {
  let engine: OwnEngine
  let real: RealDriver

  beforeEach(async () => {
    engine = await ownEngine()
    real = await realDriver({ socketPath: engine.socketPath })
  })

  afterEach(async () => {
    await real[Symbol.asyncDispose]()
    await engine[Symbol.asyncDispose]()
  })

  test('takes its sandboxes with it: they are lost, calls say so, and everything works again when it is back', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    const running = thrown(sh(sandbox, 'sleep 60'))
    await engine.stop('SIGTERM')
    expect((await sandbox.exited).reason).toBe('lost')
    expect(isFaasError(await running, 'sandbox/lost')).toBe(true)
    expect(isFaasError(await thrown(sh(sandbox, 'true')), 'sandbox/lost')).toBe(true)
    expect(isFaasError(await thrown(real.driver.create(real.spec(), { signal })), 'runtime/unavailable')).toBe(true)
    expect(isFaasError(await thrown(real.driver.list(signal)), 'runtime/unavailable')).toBe(true)
    expect(isFaasError(await thrown(real.driver.images.list(signal)), 'runtime/unavailable')).toBe(true)
    const report = await real.driver.probe(signal)
    expect(report).toMatchObject({ usable: false, version: null })
    expect(report.hint).toBeDefined()
    const failed = await thrown(sandbox[Symbol.asyncDispose]())
    expect(isFaasError(failed, 'runtime/unavailable')).toBe(true)

    await engine.start()
    await sandbox[Symbol.asyncDispose]()
    expect(await real.driver.list(signal)).toEqual([])
    expect((await real.driver.probe(signal)).usable).toBe(true)
    await using next = await real.driver.create(real.spec(), { signal })
    expect((await sh(next, 'echo back')).stdout).toBe('back\n')
  }, 120_000)

  test('by being killed leaves running sandboxes usable, and their removal possible once it is back', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    await engine.stop('SIGKILL')
    // The agent is spoken to directly; only what needs the engine does not work.
    expect((await sh(sandbox, 'echo alive')).stdout).toBe('alive\n')
    expect((await sandbox.stats()).pids).toBe(1)
    expect(isFaasError(await thrown(sandbox.pause()), 'runtime/unavailable')).toBe(true)
    await engine.start()
    await sandbox[Symbol.asyncDispose]()
    expect(await real.driver.list(signal)).toEqual([])
  }, 120_000)
})

test('an engine that keeps its containers over a restart keeps sandboxes alive', async () => {
  await using engine = await ownEngine({ 'live-restore': true })
  await using real = await realDriver({ socketPath: engine.socketPath })
  const sandbox = await real.driver.create(real.spec(), { signal })
  await sh(sandbox, 'echo state > /tmp/state')
  await engine.stop('SIGTERM')
  await engine.start()
  expect((await sh(sandbox, 'cat /tmp/state')).stdout).toBe('state\n')
  await sandbox.pause()
  await sandbox.resume()
  await sandbox[Symbol.asyncDispose]()
  expect(await real.driver.list(signal)).toEqual([])
}, 120_000)

test('a socket where nobody answers makes the driver unusable, with the reason and a hint', async () => {
  await using engine = await ownEngine()
  await using real = await realDriver({ socketPath: engine.socketPath })
  await engine.stop('SIGTERM')
  const report = await real.driver.probe(signal)
  expect(report.usable).toBe(false)
  expect(report.reason).toContain('can not be reached')
  expect(report.facts[0]?.evidence).toContain(engine.socketPath)
  await engine.start()
}, 120_000)
