import { describe, expect, it } from 'vitest'
import type { Clock } from './ports.js'
import { Stopwatch, systemClock, systemIds } from './system.js'

function clockOf(times: number[]): Clock {
  return { nowMs: () => 0, monotonicMs: () => times.shift() ?? 0, delay: () => Promise.resolve() }
}

describe('the system clock', () => {
  it('never goes back and its delay waits', async () => {
    const before = systemClock.monotonicMs()
    await systemClock.delay(5)
    expect(systemClock.monotonicMs() - before).toBeGreaterThanOrEqual(4)
    expect(Math.abs(systemClock.nowMs() - Date.now())).toBeLessThan(1_000)
  })

  it('a delay ends with the reason of its signal, before or during the wait', async () => {
    const reason = new Error('stop')
    await expect(systemClock.delay(60_000, AbortSignal.abort(reason))).rejects.toBe(reason)
    const stop = new AbortController()
    const waiting = systemClock.delay(60_000, stop.signal)
    stop.abort(reason)
    await expect(waiting).rejects.toBe(reason)
  })

  it('ids are different UUIDs of version 4', () => {
    const ids = new Set(Array.from({ length: 100 }, () => systemIds.uuid()))
    expect(ids.size).toBe(100)
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  })
})

describe('Stopwatch', () => {
  it('keeps phases in order of first occurrence and adds up repeated ones', () => {
    const watch = new Stopwatch(clockOf([0, 10, 15, 35]))
    expect([watch.lap('create'), watch.lap('connect'), watch.lap('create')]).toEqual([10, 5, 20])
    expect(Object.entries(watch.budget())).toEqual([['create', 30], ['connect', 5]])
  })

  it('the phases together are the whole time', () => {
    const watch = new Stopwatch(clockOf([100, 101.5, 107.25, 120]))
    for (const name of ['a', 'b', 'c']) watch.lap(name)
    expect(Object.values(watch.budget()).reduce((sum, ms) => sum + ms, 0)).toBe(20)
  })

  it('a budget is rounded to microseconds', () => {
    const watch = new Stopwatch(clockOf([0, 1.23456]))
    watch.lap('a')
    expect(watch.budget()).toEqual({ a: 1.235 })
  })
})
