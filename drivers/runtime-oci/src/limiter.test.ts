import { describe, expect, it } from 'vitest'
import { Limiter } from './limiter.js'

const never = new AbortController().signal

describe('a limiter', () => {
  it('lets so many in and the rest in order', async () => {
    const limiter = new Limiter(2)
    const order: number[] = []
    const [a, b] = [await limiter.take(never), await limiter.take(never)]
    const third = limiter.take(never).then((slot) => (order.push(3), slot))
    const fourth = limiter.take(never).then((slot) => (order.push(4), slot))
    await Promise.resolve()
    expect(order).toEqual([])
    a.release()
    a.release()
    const slot = await third
    expect(order).toEqual([3])
    slot.release()
    b.release()
    await fourth
    expect(order).toEqual([3, 4])
  })

  it('forgets who gives up, and loses no place by it', async () => {
    const limiter = new Limiter(1)
    const first = await limiter.take(never)
    const stop = new AbortController()
    const given = limiter.take(stop.signal)
    const next = limiter.take(never)
    stop.abort(new Error('given up'))
    await expect(given).rejects.toThrow('given up')
    first.release()
    ;(await next).release()
    ;(await limiter.take(never)).release()
    await expect(limiter.take(AbortSignal.abort())).rejects.toThrow()
  })
})
