import fc from 'fast-check'
import { expect, test } from 'vitest'
import { asId, type PrincipalId } from '@faas-platform/core'
import { FakeClock } from '@faas-platform/testkit'
import { Admission, type Ticket } from './admission.js'

const step = fc.oneof(
  fc.record({ do: fc.constant('enter' as const), who: fc.integer({ min: 0, max: 3 }), background: fc.boolean() }),
  fc.record({ do: fc.constant('release' as const), which: fc.nat() }),
  fc.record({ do: fc.constant('giveUp' as const), which: fc.nat() }),
)

test('limits hold at every moment, nobody who waits is forgotten, and the end is empty', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 120 }), async (steps) => {
      const limits = { concurrencyMax: 3, queueMax: 5, principalConcurrencyMax: 2, principalOutstandingMax: 6 }
      const admission = new Admission(limits, new FakeClock())
      const out: { readonly who: number; readonly ticket: Ticket }[] = []
      const waiting: { readonly who: number; readonly abort: AbortController }[] = []
      const check = (): void => {
        expect(admission.running).toBe(out.length)
        expect(out.length).toBeLessThanOrEqual(limits.concurrencyMax)
        expect(admission.queued).toBe(waiting.length)
        for (let who = 0; who < 4; who++) {
          const running = out.filter((entry) => entry.who === who).length
          expect(running).toBeLessThanOrEqual(limits.principalConcurrencyMax)
          // Nobody waits beside a free place that is allowed to them.
          const mayRun = out.length < limits.concurrencyMax && running < limits.principalConcurrencyMax
          if (mayRun) expect(waiting.some((entry) => entry.who === who)).toBe(false)
        }
      }
      const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
      for (const at of steps) {
        if (at.do === 'enter') {
          const abort = new AbortController()
          let entered
          try {
            entered = admission.enter(asId<PrincipalId>(`p${at.who}`), { signal: abort.signal, background: at.background })
          } catch {
            continue // Refused by a bound.
          }
          if (!(entered instanceof Promise)) out.push({ who: at.who, ticket: entered })
          else {
            const place = { who: at.who, abort }
            waiting.push(place)
            entered.then(
              (ticket) => {
                waiting.splice(waiting.indexOf(place), 1)
                out.push({ who: at.who, ticket })
              },
              () => waiting.splice(waiting.indexOf(place), 1),
            )
          }
        } else if (at.do === 'release' && out.length > 0) out.splice(at.which % out.length, 1)[0]?.ticket.release()
        else if (at.do === 'giveUp' && waiting.length > 0) waiting[at.which % waiting.length]?.abort.abort(new Error('gave up'))
        await settle()
        check()
      }
      while (out.length > 0) {
        out.pop()?.ticket.release()
        await settle()
        check()
      }
      expect(waiting).toEqual([])
      expect(admission).toMatchObject({ running: 0, queued: 0 })
    }),
    { numRuns: 150 },
  )
}, 60_000)
