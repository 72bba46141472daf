import { describe, expect, it } from 'vitest'
import { FakeClock } from './fake-clock.js'
import { injectFaults } from './fault-injector.js'

class Counter {
  #count = 0
  readonly name = 'counter'
  async add(n: number): Promise<number> {
    this.#count += n
    return Promise.resolve(this.#count)
  }
  async read(): Promise<number> {
    return Promise.resolve(this.#count)
  }
}

describe('injectFaults', () => {
  it('passes everything else through, private state and plain values too', async () => {
    const { port, calls } = injectFaults(new Counter(), new FakeClock())
    expect(await port.add(2)).toBe(2)
    expect(port.name).toBe('counter')
    expect([calls('add'), calls('read')]).toEqual([1, 0])
  })

  it('fails exactly the n-th call, before it takes effect', async () => {
    const error = new Error('injected')
    const { port } = injectFaults(new Counter(), new FakeClock(), [{ method: 'add', nth: 2, fail: { error } }])
    await port.add(1)
    await expect(port.add(1)).rejects.toBe(error)
    expect(await port.add(1)).toBe(2)
  })

  it('fails after the call took effect: the answer is lost, not the work', async () => {
    const { port } = injectFaults(new Counter(), new FakeClock(), [{ method: 'add', nth: 1, fail: { error: new Error('lost'), when: 'after' } }])
    await expect(port.add(1)).rejects.toThrow('lost')
    expect(await port.read()).toBe(1)
  })

  it('delays on the given clock and aborts when the call is reached', async () => {
    const clock = new FakeClock()
    const abort = new AbortController()
    const { port, add, clear } = injectFaults(new Counter(), clock)
    add({ method: 'add', delayMs: 50, abort })
    const adding = port.add(1)
    expect(abort.signal.aborted).toBe(true)
    await clock.whenPending()
    expect(await port.read()).toBe(0)
    await clock.advance(50)
    expect(await adding).toBe(1)
    clear()
    expect(await port.add(1)).toBe(2)
  })
})
