import { describe, expect, it } from 'vitest'
import { FakeClock } from './fake-clock.js'

describe('FakeClock', () => {
  it('stands still until it is moved', async () => {
    const clock = new FakeClock({ nowMs: 1_000 })
    const before = clock.nowMs()
    await clock.advance(0)
    expect([before, clock.nowMs(), clock.monotonicMs()]).toEqual([1_000, 1_000, 0])
  })

  it('ends delays in order of their due time, equal ones in the order of asking, each seeing its own time', async () => {
    const clock = new FakeClock()
    const seen: [string, number][] = []
    const wait = (name: string, ms: number) => clock.delay(ms).then(() => void seen.push([name, clock.monotonicMs()]))
    const all = [wait('c', 30), wait('a', 10), wait('b1', 20), wait('b2', 20)]
    await clock.advance(25)
    expect(seen).toEqual([['a', 10], ['b1', 20], ['b2', 20]])
    expect(clock.pending).toBe(1)
    await clock.advance(5)
    await Promise.all(all)
    expect(seen.at(-1)).toEqual(['c', 30])
  })

  it('a delay asked for on the way is due on the way', async () => {
    const clock = new FakeClock()
    const ticks: number[] = []
    const loop = (async () => {
      for (let i = 0; i < 5; i++) {
        await clock.delay(10)
        ticks.push(clock.monotonicMs())
      }
    })()
    await clock.advance(100)
    await loop
    expect(ticks).toEqual([10, 20, 30, 40, 50])
    expect(clock.monotonicMs()).toBe(100)
  })

  it('an aborted delay rejects with the reason and waits no more', async () => {
    const clock = new FakeClock()
    const stop = new AbortController()
    const reason = new Error('stop')
    const waiting = clock.delay(10, stop.signal)
    stop.abort(reason)
    await expect(waiting).rejects.toBe(reason)
    expect(clock.pending).toBe(0)
    await expect(clock.delay(10, stop.signal)).rejects.toBe(reason)
  })

  it('advanceToNext goes exactly to the next due time, and says when there is none', async () => {
    const clock = new FakeClock()
    const waiting = clock.delay(70)
    expect(await clock.advanceToNext()).toBe(true)
    await waiting
    expect(clock.monotonicMs()).toBe(70)
    expect(await clock.advanceToNext()).toBe(false)
  })
})
