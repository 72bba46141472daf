import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { asId, FaasError, type ExecutionId } from '@faas-platform/core'
import { FakeClock, MemoryDriver } from '@faas-platform/testkit'
import { ALICE, as, makeRig, request, type ConfigChanges, type Rig } from '../test-support/rig.js'

let clock: FakeClock
let rig: Rig

const HOUR = 3_600_000

async function open(config: ConfigChanges, driver = new MemoryDriver({ clock })): Promise<void> {
  rig = await makeRig({ clock, driver, config: { housekeepingMs: 1_000, ...config } })
}

beforeEach(() => {
  clock = new FakeClock()
})

afterEach(async () => {
  const drained = rig.executor.drain(0)
  await clock.advance(10_000)
  await drained
  expect(rig.driver.live()).toEqual({ sandboxes: 0, processes: 0, retained: 0, creating: 0 })
})

/** Lets time pass while something is under way. */
async function passing<T>(promise: Promise<T>, ms = 50): Promise<T> {
  await clock.advance(ms)
  return promise
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'it resolved', (error: unknown) => (error instanceof FaasError ? error.code : String(error)))
}

describe('with time', () => {
  test('an end state is dropped at its expiry', async () => {
    await open({ retention: { ttlMs: 60_000 } })
    const { id } = await passing(rig.executor.run(request('echo x > /kept'), as(ALICE)))
    await passing(rig.executor.getRetained(id, ALICE).then(() => undefined))
    expect(rig.driver.live().retained).toBe(1)
    await clock.advance(62_000)
    expect(rig.driver.live().retained).toBe(0)
    expect(await codeOf(rig.executor.getRetained(id, ALICE))).toBe('execution/result-expired')
    expect(rig.executor.metrics().retention).toMatchObject({ count: 0, bytes: 0, kept: 1, dropped: 1 })
  })

  test('an instance that nobody uses is stopped; one that is used is not', async () => {
    await open({ instances: { idleMsMax: HOUR } })
    const { instanceId } = await passing(rig.executor.run(request('true', { mode: 'persistent' }), as(ALICE)))
    await clock.advance(HOUR - 10_000)
    await passing(rig.executor.execInInstance(instanceId ?? '', request('true'), as(ALICE)))
    await clock.advance(HOUR - 10_000)
    expect(rig.executor.getInstance(instanceId ?? '', ALICE).state).toBe('running')
    await clock.advance(20_000)
    expect(rig.executor.getInstance(instanceId ?? '', ALICE)).toMatchObject({ state: 'stopped', message: 'It was idle for too long.' })
  })

  test('an instance ends with its time to live, whatever it does', async () => {
    await open({ instances: { ttlMs: HOUR } })
    const made = await passing(rig.executor.run(request('true', { mode: 'persistent' }), as(ALICE)))
    const id = made.instanceId ?? ''
    const busy = codeOf(rig.executor.execInInstance(id, request('sleep 100000', { timeoutMs: 5 * HOUR }), as(ALICE)))
    await clock.advance(HOUR + 2_000)
    expect(rig.executor.getInstance(id, ALICE)).toMatchObject({ state: 'stopped', message: 'Its time to live was over.' })
    expect(await busy).toBe('sandbox/destroyed')
  })

  test('records go at their age', async () => {
    await open({ recordTtlMs: HOUR })
    const { id } = await passing(rig.executor.run(request('true'), as(ALICE)))
    await clock.advance(HOUR - 5_000)
    expect((await rig.executor.get(id, ALICE)).id).toBe(id)
    await clock.advance(10_000)
    expect(await codeOf(rig.executor.get(id, ALICE))).toBe('execution/not-found')
  })

  test('a command that fills its disk is ended, where the runtime only counts', async () => {
    const driver = new MemoryDriver({ clock })
    const create = driver.create.bind(driver)
    driver.create = async (spec, options) => create({ ...spec, limits: { ...spec.limits, writableBytesMax: 1e9 } }, options)
    await open({ diskCheckMs: 100 }, driver)
    const running = rig.executor.run(request('head -c 50000 /dev/zero > /big; sleep 1000', { limits: { ...request('').limits, writableBytesMax: 10_000 }, timeoutMs: HOUR }), as(ALICE))
    await clock.advance(2_000)
    expect(await running).toMatchObject({ outcome: 'disk_limit', state: 'failed', errorCode: 'execution/disk-limit' })
  })
})

describe('starting after a killed process', () => {
  test('frees what it left, takes up its work and reports its instances as lost', async () => {
    const before = new MemoryDriver({ clock })
    await open({ pool: { enabled: false } }, before)
    const { instanceId } = await passing(rig.executor.run(request('true', { mode: 'persistent' }), as(ALICE)))
    const once = asId<ExecutionId>('once')
    const again = asId<ExecutionId>('again')
    await rig.executor.submit(request('sleep 1; echo once', { rerunnable: false }), { principal: ALICE, id: once })
    await rig.executor.submit(request('sleep 1; echo again'), { principal: ALICE, id: again })
    await clock.advance(100)
    // As the ledger was when the process was killed: a copy that the old executor does not write to.
    const { ledger } = rig
    const crashed = new (ledger.constructor as new () => typeof ledger)()
    for (const [id, record] of ledger.executions) crashed.executions.set(id, structuredClone(record))
    for (const [id, record] of ledger.instances) crashed.instances.set(id, record)

    const after = new MemoryDriver({ clock, host: before.host })
    const old = rig
    rig = await makeRig({ clock, driver: after, ledger: crashed, config: { housekeepingMs: 1_000, pool: { enabled: false } } })
    expect(rig.executor.metrics().reclaimed.memory?.sandboxes).toBe(3)
    expect(rig.executor.getInstance(instanceId ?? '', ALICE)).toMatchObject({ state: 'failed' })
    await clock.advance(2_000)
    expect(await rig.executor.get(once, ALICE)).toMatchObject({ state: 'failed', result: { outcome: 'error', errorCode: 'execution/interrupted' } })
    expect(await rig.executor.get(again, ALICE)).toMatchObject({ state: 'succeeded', attempt: 2 })
    const drained = old.executor.drain(0)
    await clock.advance(10_000)
    await drained
  })
})
