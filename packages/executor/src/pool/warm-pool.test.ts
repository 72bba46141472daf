import { beforeEach, describe, expect, test } from 'vitest'
import { FaasError, MIB, silentLog } from '@faas-platform/core'
import { BASE_REFERENCE, FakeClock, MemoryDriver, sequenceIds } from '@faas-platform/testkit'
import { ofIdleSize } from '../../test-support/idle-size.js'
import { request, testConfig } from '../../test-support/rig.js'
import type { PoolConfig } from '../config.js'
import { Disposer } from '../disposer.js'
import { Metrics } from '../metrics.js'
import type { PoolSpec, TakenSandbox } from './slot.js'
import { WarmPool } from './warm-pool.js'

let clock: FakeClock
let driver: MemoryDriver
let metrics: Metrics
let disposer: Disposer

beforeEach(() => {
  clock = new FakeClock()
  driver = new MemoryDriver({ clock })
  driver.faults.createDelayMs = 100
  metrics = new Metrics()
  disposer = new Disposer({ concurrencyMax: 4, backlogMax: 64, attemptsMax: 3, retryMs: 1 }, clock, silentLog)
})

function makePool(changes: Partial<PoolConfig> = {}): WarmPool {
  const config: PoolConfig = { ...testConfig().pool, refillDelayMs: 0, creationConcurrencyMax: 3, idleMemoryBytesGuess: 10 * MIB, memoryBytesMax: 1000 * MIB, ...changes }
  return new WarmPool({ config, createTimeoutMs: 5_000, clock, ids: sequenceIds(), log: silentLog, disposer, metrics })
}

/** Kinds differ by a limit. */
async function specOf(kind = 10): Promise<PoolSpec> {
  const image = await driver.images.resolve(BASE_REFERENCE, { pull: 'never', signal: new AbortController().signal })
  const { limits, network } = request('')
  return { driver: ofIdleSize(driver, 10 * MIB), image, limits: { ...limits, pidsMax: kind }, network }
}

async function obtain(pool: WarmPool, spec: PoolSpec, signal = new AbortController().signal): Promise<TakenSandbox> {
  return pool.take(spec) ?? pool.wait(spec, signal)
}

async function closeAll(pool: WarmPool, taken: readonly TakenSandbox[] = []): Promise<void> {
  await pool.close()
  for (const { sandbox } of taken) await sandbox[Symbol.asyncDispose]()
  await disposer.idle()
  expect(driver.live()).toEqual({ sandboxes: 0, processes: 0, retained: 0, creating: 0 })
}

describe('freezing', () => {
  test('a sandbox that is busy when idle waits frozen and is awake when it is used', async () => {
    driver = new MemoryDriver({ clock, features: { busyWhenIdle: true } })
    const pool = makePool()
    const spec = await specOf()
    await Promise.all([pool.prewarm(spec, 1, new AbortController().signal), clock.advance(100)])
    const fresh = pool.take(spec)
    expect(fresh).toMatchObject({ thaw: null }) // just made: nothing to wake
    await clock.advance(100)
    await clock.advance(testConfig().pool.tickMs + testConfig().pool.freezeAfterMs)
    const taken = pool.take(spec)
    expect(taken?.thaw).not.toBeNull()
    await taken?.thaw?.()
    const handle = await taken?.sandbox.exec({ argv: ['true'], env: {} }, { onOutput: () => undefined }, { signal: new AbortController().signal })
    expect((await handle?.wait())?.exitCode).toBe(0)
    await closeAll(pool, [fresh, taken].filter((one) => one !== undefined))
  })

  test('others are never frozen', async () => {
    const pool = makePool()
    const spec = await specOf()
    await Promise.all([pool.prewarm(spec, 1, new AbortController().signal), clock.advance(100)])
    const taken = pool.take(spec)
    expect(taken).toMatchObject({ thaw: null })
    await closeAll(pool, taken === undefined ? [] : [taken])
  })
})

describe('taking', () => {
  test('the first request waits for a cold sandbox, the next finds one ready', async () => {
    const pool = makePool()
    const spec = await specOf()
    const first = obtain(pool, spec)
    await clock.advance(100)
    expect((await first).start).toBe('cold')
    await clock.advance(100)
    const second = pool.take(spec)
    expect(second?.start).toBe('warm')
    expect(second?.sandbox.id).not.toBe((await first).sandbox.id)
    expect(second?.statsBefore).not.toBeNull()
    expect(metrics.pool).toMatchObject({ hits: 1, misses: 1 })
    await closeAll(pool, [await first, ...(second === undefined ? [] : [second])])
  })

  test('a burst makes no more sandboxes than there are requests, and serves them in order', async () => {
    const pool = makePool()
    const spec = await specOf()
    const order: number[] = []
    const all = Array.from({ length: 10 }, (_, n) => obtain(pool, spec).then((taken) => {
      order.push(n)
      return taken
    }))
    for (let step = 0; step < 4; step++) {
      expect(driver.live().creating).toBeLessThanOrEqual(3)
      await clock.advance(100)
    }
    const taken = await Promise.all(all)
    expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(new Set(taken.map(({ sandbox }) => sandbox.id)).size).toBe(10)
    expect(metrics.pool.creations - driver.live().creating).toBe(10)
    await closeAll(pool, taken)
  })

  test('requests that wait come before refills of any kind', async () => {
    const pool = makePool({ creationConcurrencyMax: 1 })
    const [spec, other] = [await specOf(), await specOf(11)]
    const warming = pool.prewarm(other, 5, new AbortController().signal)
    await clock.advance(50)
    const waiting = obtain(pool, spec)
    await clock.advance(50) // The refill that had begun is done; the request is next.
    expect(pool.reports().find((line) => line.limits.pidsMax === 10)?.creating).toBe(1)
    await clock.advance(100)
    expect((await waiting).start).toBe('cold')
    await clock.advance(600)
    expect((await warming).ready).toBe(5)
    await closeAll(pool, [await waiting])
  })

  test('a request that gives up leaves its sandbox to the next', async () => {
    const pool = makePool()
    const spec = await specOf()
    const gone = new AbortController()
    const first = obtain(pool, spec, gone.signal)
    const outcome = first.then(() => 'served', (error: Error) => error.message)
    gone.abort(new Error('gone'))
    expect(await outcome).toBe('gone')
    await clock.advance(100)
    expect(pool.take(spec)?.start).toBe('warm')
    await pool.close()
  })

  test('a failed creation is told to one who waits, the others go on', async () => {
    const pool = makePool({ creationConcurrencyMax: 2 })
    const spec = await specOf()
    driver.faults.failCreates = 1
    const outcomes = [1, 2, 3].map(() => obtain(pool, spec).then((taken) => taken, (error: FaasError) => error.code))
    await clock.advance(400)
    const settled = await Promise.all(outcomes)
    expect(settled.filter((outcome) => outcome === 'sandbox/create-failed')).toHaveLength(1)
    await closeAll(pool, settled.filter((outcome) => typeof outcome !== 'string'))
  })

  test('a creation that hangs is given up', async () => {
    const pool = makePool()
    driver.faults.createDelayMs = 1e9
    const outcome = obtain(pool, await specOf()).then(() => 'served', (error: FaasError) => error.code)
    await clock.advance(5_000)
    expect(await outcome).toBe('sandbox/create-timeout')
    await closeAll(pool)
  })
})

describe('the size', () => {
  test('follows arrival rate and creation time, within the limit per kind', async () => {
    const pool = makePool({ readyMaxPerKey: 6 })
    const spec = await specOf()
    const taken: Promise<TakenSandbox>[] = []
    for (let n = 0; n < 200; n++) {
      taken.push(obtain(pool, spec))
      await clock.advance(20)
    }
    // 50/s × 0.1 s × 1.5 = 7.5, of which the limit allows 6.
    expect(pool.reports()[0]?.target).toBe(6)
    expect(pool.reports()[0]?.arrivalsPerSecond).toBeGreaterThan(15)
    await clock.advance(5_000) // More were asked for than three creators could make; they catch up.
    // By then the rate has fallen; what is ready was wanted when it was made.
    expect(pool.reports()[0]?.ready).toBeGreaterThanOrEqual(pool.reports()[0]?.target ?? Infinity)
    expect(pool.reports()[0]?.ready).toBeLessThanOrEqual(6)
    await closeAll(pool, await Promise.all(taken))
  })

  test('falls to the floor when nobody asks any more', async () => {
    const pool = makePool({ idleMsMax: 10_000 })
    const spec = await specOf()
    const warming = pool.prewarm(spec, 2, new AbortController().signal)
    await clock.advance(1_000)
    await warming
    const taken = [pool.take(spec), pool.take(spec)]
    await clock.advance(1_000)
    expect(pool.reports()[0]?.ready).toBe(2)
    await clock.advance(60_000)
    expect(pool.reports()[0]?.ready).toBe(2)
    await pool.prewarm(spec, 0, new AbortController().signal)
    await clock.advance(20_000)
    expect(pool.reports()).toEqual([])
    await closeAll(pool, taken.filter((entry) => entry !== undefined))
  })

  test('never holds more memory than its budget, and says so', async () => {
    const pool = makePool({ memoryBytesMax: 35 * MIB })
    const spec = await specOf()
    driver.faults.createDelayMs = 1
    const warming = pool.prewarm(spec, 10, new AbortController().signal)
    await clock.advance(1_000)
    const { ready, limitedBy } = await warming
    expect(limitedBy).toMatch(/memory budget/)
    expect(ready).toBe(3)
    expect(pool.idleBytes).toBeLessThanOrEqual(35 * MIB)
    await closeAll(pool)
  })

  test('gives the budget to the kind that is wanted now', async () => {
    const pool = makePool({ memoryBytesMax: 10 * MIB })
    const [old, wanted] = [await specOf(), await specOf(11)]
    const first = obtain(pool, old)
    await clock.advance(200)
    expect(pool.reports()[0]?.ready).toBe(1)
    const second = obtain(pool, wanted)
    await clock.advance(300)
    expect(pool.reports().find((line) => line.limits.pidsMax === 11)?.ready).toBe(1)
    expect(pool.idleBytes).toBeLessThanOrEqual(10 * MIB)
    await closeAll(pool, [await first, await second])
  })

  test('is bounded in kinds: the least recently used goes', async () => {
    const pool = makePool({ keysMax: 2 })
    const taken: TakenSandbox[] = []
    for (const kind of [1, 2, 3]) {
      const waiting = obtain(pool, await specOf(kind))
      await clock.advance(100)
      taken.push(await waiting)
      await clock.advance(100)
    }
    expect(pool.reports()).toHaveLength(2)
    expect(pool.reports().map((line) => line.limits.pidsMax)).toEqual([2, 3])
    await closeAll(pool, taken)
  })
})

describe('trouble', () => {
  test('an idle sandbox that dies is replaced, after a pause', async () => {
    const pool = makePool({ backoffMs: 500 })
    const spec = await specOf()
    const warming = pool.prewarm(spec, 1, new AbortController().signal)
    await clock.advance(200)
    await warming
    const [id] = await driver.list()
    if (id !== undefined) driver.lose(id)
    await clock.advance(0)
    expect(pool.reports()[0]).toMatchObject({ ready: 0, lastError: 'An idle sandbox ended by itself: The sandbox ended by itself.' })
    await clock.advance(2_000)
    expect(pool.reports()[0]?.ready).toBe(1)
    expect(metrics.pool.deaths).toBe(1)
    await closeAll(pool)
  })

  test('an image that always fails is tried less and less often', async () => {
    const pool = makePool({ backoffMs: 1_000, backoffMsMax: 60_000 })
    const spec = await specOf()
    driver.faults.failCreates = 1_000_000
    driver.faults.createDelayMs = 1
    const warming = pool.prewarm(spec, 3, new AbortController().signal)
    await clock.advance(100)
    expect((await warming).limitedBy).toBe('The injected fault made the creation fail.')
    await clock.advance(600_000)
    expect(driver.counts.failed).toBeLessThan(60)
    driver.faults.failCreates = 0
    await clock.advance(70_000)
    expect(pool.reports()[0]?.ready).toBe(3)
    await closeAll(pool)
  })

  test('closing while sandboxes are being made leaves none', async () => {
    const pool = makePool()
    const spec = await specOf()
    const outcome = obtain(pool, spec).then(() => 'served', (error: FaasError) => error.code)
    await clock.advance(50)
    await closeAll(pool)
    expect(await outcome).toBe('admission/draining')
    expect(() => pool.take(spec)).toThrow(FaasError)
  })

  test('a disposal that fails is tried again, then counted', async () => {
    let attempts = 0
    const done = disposer.push('stubborn', () => {
      attempts++
      return Promise.reject(new Error('no'))
    })
    await clock.advance(1_000)
    await done
    expect(attempts).toBe(3)
    expect(disposer.counts).toMatchObject({ failed: 1, retried: 2, disposed: 0 })
    expect(disposer.backlog).toBe(0)
  })
})
