import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Cleanup } from './cleanup.js'

describe('Cleanup', () => {
  it('runs its steps last in first out, one after the other', async () => {
    const order: string[] = []
    const cleanup = new Cleanup()
    for (const name of ['a', 'b', 'c']) {
      cleanup.add(async () => {
        order.push(`${name} begins`)
        await new Promise((resolve) => setImmediate(resolve))
        order.push(`${name} ends`)
      })
    }
    await cleanup.run()
    expect(order).toEqual(['c begins', 'c ends', 'b begins', 'b ends', 'a begins', 'a ends'])
  })

  it('runs each step once, however often and however concurrently it is asked', async () => {
    let count = 0
    const cleanup = new Cleanup()
    cleanup.add(() => ++count)
    const first = cleanup.run()
    expect(cleanup.run()).toBe(first)
    await Promise.all([first, cleanup[Symbol.asyncDispose]()])
    await cleanup.run()
    expect(count).toBe(1)
  })

  it('every step runs even when some fail; one error comes as it is, several are joined in order', async () => {
    await fc.assert(fc.asyncProperty(fc.array(fc.boolean(), { maxLength: 12 }), async (failing) => {
      const ran: number[] = []
      const cleanup = new Cleanup()
      failing.forEach((fails, i) => cleanup.add(() => {
        ran.push(i)
        if (fails) throw new Error(`step ${i}`)
      }))
      const thrown = await cleanup.run().then(() => undefined, (error: unknown) => error)
      expect(ran).toEqual(failing.map((_, i) => i).reverse())
      const expected = failing.flatMap((fails, i) => (fails ? [`step ${i}`] : [])).reverse()
      if (expected.length === 0) expect(thrown).toBeUndefined()
      else if (expected.length === 1) expect(thrown).toMatchObject({ message: expected[0] })
      else expect((thrown as AggregateError).errors.map((error: Error) => error.message)).toEqual(expected)
    }))
  })

  it('a step that comes late is run after the others instead of leaking', async () => {
    const order: string[] = []
    const cleanup = new Cleanup()
    cleanup.add(() => {
      cleanup.add(() => order.push('late'))
      order.push('early')
    })
    cleanup.add(() => order.push('earlier'))
    await cleanup.run()
    await cleanup.run()
    expect(order).toEqual(['earlier', 'early', 'late'])
  })

  it('a step that comes after the end runs too, and run() reports its failure', async () => {
    const cleanup = new Cleanup()
    await cleanup.run()
    let ran = false
    cleanup.add(() => {
      ran = true
    })
    await cleanup.run()
    expect(ran).toBe(true)
    cleanup.add(() => {
      throw new Error('late failure')
    })
    await expect(cleanup.run()).rejects.toThrow('late failure')
  })

  it('a late step runs even when an earlier one failed', async () => {
    const cleanup = new Cleanup()
    cleanup.add(() => {
      throw new Error('first')
    })
    await expect(cleanup.run()).rejects.toThrow('first')
    let ran = false
    cleanup.add(() => {
      ran = true
    })
    await cleanup.run().catch(() => undefined)
    expect(ran).toBe(true)
  })

  it('what was released runs with its new owner only', async () => {
    const order: string[] = []
    const cleanup = new Cleanup()
    cleanup.add(() => order.push('a'))
    cleanup.add(() => order.push('b'))
    const owner = cleanup.release()
    await cleanup.run()
    expect(order).toEqual([])
    await owner.run()
    expect(order).toEqual(['b', 'a'])
  })

  it('takes over disposables and hands them back', async () => {
    let disposed = false
    const resource = { [Symbol.asyncDispose]: async () => { disposed = true; await Promise.resolve() } }
    {
      await using cleanup = new Cleanup()
      expect(cleanup.use(resource)).toBe(resource)
      expect(disposed).toBe(false)
    }
    expect(disposed).toBe(true)
  })
})
