import fc from 'fast-check'
import { expect, test } from 'vitest'
import { MIB, silentLog, type Sandbox } from '@faas-platform/core'
import { BASE_REFERENCE, FakeClock, MemoryDriver, sequenceIds } from '@faas-platform/testkit'
import { ofIdleSize } from '../../test-support/idle-size.js'
import { request, testConfig } from '../../test-support/rig.js'
import { Disposer } from '../disposer.js'
import { Metrics } from '../metrics.js'
import type { PoolSpec } from './slot.js'
import { WarmPool } from './warm-pool.js'

type Step =
  | { readonly do: 'take'; readonly kind: number; readonly giveUpAfterMs: number | null }
  | { readonly do: 'advance'; readonly ms: number }
  | { readonly do: 'prewarm'; readonly kind: number; readonly count: number }
  | { readonly do: 'fail'; readonly times: number }
  | { readonly do: 'lose'; readonly which: number }
  | { readonly do: 'release' }

const kind = fc.integer({ min: 0, max: 2 })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('take' as const), kind, giveUpAfterMs: fc.option(fc.integer({ min: 0, max: 150 }), { nil: null }) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constant('advance' as const), ms: fc.integer({ min: 1, max: 3_000 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('prewarm' as const), kind, count: fc.integer({ min: 0, max: 5 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fail' as const), times: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.constant({ do: 'release' as const }) },
)

/** Half as much again as the guess, so that the estimate has to learn. */
const IDLE = 15 * MIB
const BUDGET = 64 * MIB
const CREATIONS_MAX = 2

test('whatever happens: no sandbox is handed out twice, the budget holds, and every one made is taken or ended', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 60 }), async (steps) => {
      const clock = new FakeClock()
      const driver = new MemoryDriver({ clock })
      driver.faults.createDelayMs = 70
      const disposer = new Disposer({ concurrencyMax: 2, backlogMax: 8, attemptsMax: 2, retryMs: 1 }, clock, silentLog)
      const config = { ...testConfig().pool, memoryBytesMax: BUDGET, idleMemoryBytesGuess: 10 * MIB, creationConcurrencyMax: CREATIONS_MAX, idleMsMax: 5_000, readyMaxPerKey: 4, refillDelayMs: 5, keysMax: 3 }
      const pool = new WarmPool({ config, createTimeoutMs: 1_000, clock, ids: sequenceIds(), log: silentLog, disposer, metrics: new Metrics() })
      const image = await driver.images.resolve(BASE_REFERENCE, { pull: 'never', signal: new AbortController().signal })
      const specs: PoolSpec[] = [0, 1, 2].map((n) => ({ driver: ofIdleSize(driver, IDLE), image, limits: { ...request('').limits, pidsMax: 10 + n }, network: request('').network }))
      const handedOut = new Set<string>()
      const held: Sandbox[] = []
      const pending: Promise<void>[] = []
      const receive = (sandbox: Sandbox): void => {
        expect(handedOut.has(sandbox.id), 'used once').toBe(false)
        handedOut.add(sandbox.id)
        held.push(sandbox)
      }
      const invariants = (): void => {
        expect(pool.idleBytes, 'budget').toBeLessThanOrEqual(BUDGET)
        expect(driver.live().creating, 'creations').toBeLessThanOrEqual(CREATIONS_MAX)
        for (const line of pool.reports()) {
          expect(line.ready).toBeLessThanOrEqual(config.readyMaxPerKey)
          expect(line.creating, 'no stampede').toBeLessThanOrEqual(line.waiting + Math.max(line.target, 1) + CREATIONS_MAX)
        }
      }
      for (const at of steps) {
        const spec = specs['kind' in at ? at.kind : 0]
        if (spec === undefined) continue
        if (at.do === 'take') {
          const ready = pool.take(spec)
          if (ready !== undefined) receive(ready.sandbox)
          else {
            const giveUp = new AbortController()
            if (at.giveUpAfterMs !== null) void clock.delay(at.giveUpAfterMs).then(() => giveUp.abort(new Error('gave up')))
            pending.push(pool.wait(spec, giveUp.signal).then(({ sandbox }) => receive(sandbox), () => undefined))
          }
        } else if (at.do === 'advance') await clock.advance(at.ms)
        else if (at.do === 'prewarm') pending.push(pool.prewarm(spec, at.count, new AbortController().signal).then(() => undefined, () => undefined))
        else if (at.do === 'fail') driver.faults.failCreates += at.times
        else if (at.do === 'release') void pool.release(image.digest)
        else {
          const ids = (await driver.list()).filter((id) => !handedOut.has(id))
          const id = ids[at.which % Math.max(1, ids.length)]
          if (id !== undefined) driver.lose(id)
          await clock.advance(0)
        }
        invariants()
        if (at.do === 'advance') expect(pool.reports().reduce((sum, line) => sum + line.ready, 0) * IDLE, 'real memory').toBeLessThanOrEqual(BUDGET)
      }
      await pool.close()
      await clock.advance(10_000)
      await Promise.all(pending)
      await disposer.idle()
      for (const sandbox of held) await sandbox[Symbol.asyncDispose]()
      expect(driver.live(), 'no leak').toEqual({ sandboxes: 0, processes: 0, retained: 0, creating: 0 })
      expect(driver.counts.created).toBe(driver.counts.ended)
    }),
    { numRuns: 150 },
  )
}, 180_000)
