import fc from 'fast-check'
import { expect, test } from 'vitest'
import { asId, FaasError, type ExecutionId, type ExecutionResult } from '@faas-platform/core'
import { MemoryDriver } from '@faas-platform/testkit'
import { ALICE, as, BOB, makeRig, request } from '../test-support/rig.js'

const command = fc.constantFrom('true', 'echo out; echo err >&2', 'sleep 0.01; exit 7', 'echo x > /file', 'yes | head -c 5000', 'sleep 5', 'nowhere', 'memhog 200')
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('run' as const), command, who: fc.boolean(), timeoutMs: fc.constantFrom(5, 60, 5_000), mode: fc.constantFrom('ephemeral' as const, 'ephemeral' as const, 'persistent' as const), leaveAfterMs: fc.option(fc.integer({ min: 0, max: 30 }), { nil: null }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('submit' as const), command, rerunnable: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pause' as const), ms: fc.integer({ min: 0, max: 20 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose' as const), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('fail' as const), times: fc.integer({ min: 1, max: 2 }) }) },
)

const OUTCOMES = new Set(['exited', 'signaled', 'oom', 'deadline', 'cancelled', 'disk_limit', 'output_limit', 'spawn_failed'])

test('every accepted execution ends once, in a typed way, is recorded once, and nothing is left after a drain', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 25 }), fc.integer({ min: 0, max: 60 }), async (steps, drainMs) => {
      const driver = new MemoryDriver()
      const rig = await makeRig({ driver, config: { concurrencyMax: 4, queueMax: 6, principalConcurrencyMax: 3, principalOutstandingMax: 8, asyncConcurrencyMax: 2, logMemoryBytesMax: 512, killGraceMs: 5, retention: { countMax: 3 }, instances: { principalMax: 2 }, pool: { readyMaxPerKey: 2, refillDelayMs: 1 } } })
      const ids: ExecutionId[] = []
      const ends: Promise<ExecutionResult | FaasError>[] = []
      const submitted: ExecutionId[] = []
      let next = 0
      for (const at of steps) {
        const id = asId<ExecutionId>(`e-${next++}`)
        if (at.do === 'run') {
          const caller = new AbortController()
          ids.push(id)
          ends.push(rig.executor.run(request(at.command, { timeoutMs: at.timeoutMs, mode: at.mode, outputBytesMax: 100 }), as(at.who ? ALICE : BOB, { id, signal: caller.signal })).catch((error: unknown) => {
            if (error instanceof FaasError) return error
            throw error
          }))
          if (at.leaveAfterMs !== null) setTimeout(() => caller.abort(), at.leaveAfterMs)
        } else if (at.do === 'submit') {
          await rig.executor.submit(request(at.command, { rerunnable: at.rerunnable, timeoutMs: 100 }), { principal: ALICE, id })
          submitted.push(id)
        } else if (at.do === 'cancel') {
          const id = [...ids, ...submitted][at.which % Math.max(1, ids.length + submitted.length)]
          if (id !== undefined) void rig.executor.cancel(id, null).catch(() => undefined)
        } else if (at.do === 'pause') await new Promise((resolve) => setTimeout(resolve, at.ms))
        else if (at.do === 'fail') driver.faults.failCreates += at.times
        else {
          const sandboxes = await driver.list()
          const sandbox = sandboxes[at.which % Math.max(1, sandboxes.length)]
          if (sandbox !== undefined) driver.lose(sandbox)
        }
      }
      const report = await rig.executor.drain(drainMs)
      const results = await Promise.all(ends)
      for (const [index, result] of results.entries()) {
        const record = rig.ledger.executions.get(ids[index] ?? asId('none'))
        if (result instanceof FaasError) {
          expect(result.code).not.toBe('internal/bug')
          const accepted = !result.code.startsWith('admission/')
          if (accepted) expect(record?.result?.outcome).toBe('error')
        } else {
          expect(OUTCOMES.has(result.outcome), result.outcome).toBe(true)
          expect(record?.result).toEqual(result)
        }
      }
      let unfinished = 0
      for (const id of submitted) {
        const record = rig.ledger.executions.get(id)
        expect(record, 'accepted work is in the ledger').toBeDefined()
        if (record?.result === null) {
          unfinished++
          expect(record.state).toBe('queued')
        }
      }
      expect(report).toMatchObject({ handedBack: unfinished, leftBehind: 0 })
      expect(driver.live()).toEqual({ sandboxes: 0, processes: 0, retained: 0, creating: 0 })
      expect(rig.executor.metrics()).toMatchObject({ admission: { running: 0, queued: 0 }, async: { running: 0 }, teardown: { backlog: 0 }, ledger: { pendingWrites: 0, failedWrites: 0 }, instances: { live: 0 } })
    }),
    { numRuns: 60 },
  )
}, 180_000)
