import { describe, expect, test } from 'vitest'
import { asId, FaasError, type PrincipalId } from '@faas-platform/core'
import { FakeClock } from '@faas-platform/testkit'
import { Admission, type AdmissionLimits, type Ticket } from './admission.js'

const ALICE = asId<PrincipalId>('alice')
const BOB = asId<PrincipalId>('bob')
const CAROL = asId<PrincipalId>('carol')
const LIMITS: AdmissionLimits = { concurrencyMax: 2, queueMax: 4, principalConcurrencyMax: 2, principalOutstandingMax: 5 }

function make(changes: Partial<AdmissionLimits> = {}): { admission: Admission; clock: FakeClock } {
  const clock = new FakeClock()
  return { admission: new Admission({ ...LIMITS, ...changes }, clock), clock }
}

const foreground = (): { signal: AbortSignal; background: boolean } => ({ signal: new AbortController().signal, background: false })

function refusal(attempt: () => unknown): FaasError {
  try {
    attempt()
  } catch (error) {
    if (error instanceof FaasError) return error
    throw error
  }
  throw new Error('It was let in.')
}

describe('admission', () => {
  test('lets as many run as allowed, and the next when one is done', async () => {
    const { admission } = make()
    const first = admission.enter(ALICE, foreground()) as Ticket
    admission.enter(ALICE, foreground())
    const third = admission.enter(ALICE, foreground())
    expect(admission).toMatchObject({ running: 2, queued: 1 })
    first.release()
    first.release() // Idempotent.
    expect(await third).toBeDefined()
    expect(admission).toMatchObject({ running: 2, queued: 0 })
  })

  test('refuses when the queue is full, with a time to retry after', () => {
    const { admission } = make({ principalOutstandingMax: 100 })
    for (let n = 0; n < 6; n++) void admission.enter(ALICE, foreground())
    const error = refusal(() => admission.enter(BOB, foreground()))
    expect(error.code).toBe('admission/queue-full')
    expect(error.details?.['retryAfterMs']).toBeGreaterThanOrEqual(100)
  })

  test('refuses a principal over its limit while others get in', () => {
    const { admission } = make({ principalOutstandingMax: 3 })
    for (let n = 0; n < 3; n++) void admission.enter(ALICE, foreground())
    expect(refusal(() => admission.enter(ALICE, foreground())).code).toBe('admission/principal-limit')
    void admission.enter(BOB, foreground())
  })

  test('keeps a place free for others when one principal has its concurrency', () => {
    const { admission } = make({ principalConcurrencyMax: 1 })
    void admission.enter(ALICE, foreground())
    void admission.enter(ALICE, foreground())
    expect(admission).toMatchObject({ running: 1, queued: 1 })
    expect(admission.enter(BOB, foreground())).not.toBeInstanceOf(Promise)
  })

  test('serves principals in turn, whoever came with how many', async () => {
    const { admission } = make({ concurrencyMax: 1, queueMax: 100, principalOutstandingMax: 100 })
    const blocker = admission.enter(CAROL, foreground()) as Ticket
    const order: string[] = []
    const all = [ALICE, ALICE, ALICE, ALICE, BOB, BOB, CAROL].map(async (principal) => {
      const ticket = await admission.enter(principal, foreground())
      order.push(principal)
      ticket.release()
    })
    blocker.release()
    await Promise.all(all)
    expect(order).toEqual(['alice', 'bob', 'carol', 'alice', 'bob', 'alice', 'alice'])
  })

  test('forgets a request that gives up while it waits', async () => {
    const { admission } = make({ concurrencyMax: 1 })
    const first = admission.enter(ALICE, foreground()) as Ticket
    const gone = new AbortController()
    const waiting = admission.enter(ALICE, { signal: gone.signal, background: false })
    const next = admission.enter(BOB, foreground())
    gone.abort(new Error('gone'))
    await expect(waiting).rejects.toThrow('gone')
    first.release()
    ;(await next).release()
    expect(admission).toMatchObject({ running: 0, queued: 0 })
  })

  test('does not count background work against the bounds of the queue', () => {
    const { admission } = make({ queueMax: 1 })
    for (let n = 0; n < 10; n++) void admission.enter(ALICE, { signal: new AbortController().signal, background: true })
    expect(admission).toMatchObject({ running: 2, queued: 8 })
    expect(() => admission.enter(BOB, foreground())).not.toThrow()
  })

  test('estimates the wait from how long executions take', async () => {
    const { admission, clock } = make({ principalOutstandingMax: 100 })
    for (let n = 0; n < 60; n++) {
      const ticket = admission.enter(ALICE, foreground()) as Ticket
      await clock.advance(2_000)
      ticket.release()
    }
    for (let n = 0; n < 6; n++) void admission.enter(ALICE, foreground())
    expect(admission.retryAfterMs()).toBeGreaterThan(4_000)
    expect(admission.retryAfterMs()).toBeLessThan(6_000)
  })

  test('takes nobody once it is closed', () => {
    const { admission } = make()
    admission.close()
    expect(refusal(() => admission.enter(ALICE, foreground())).code).toBe('admission/draining')
  })
})
