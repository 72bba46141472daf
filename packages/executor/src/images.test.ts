import { expect, test } from 'vitest'
import { FaasError, type PullProgress, type ResolvedImage } from '@faas-platform/core'
import { BASE_REFERENCE, FakeClock, MemoryDriver } from '@faas-platform/testkit'
import { ImageResolver } from './images.js'

function make(): { driver: MemoryDriver; clock: FakeClock; resolver: ImageResolver; asked: () => number } {
  const clock = new FakeClock()
  const driver = new MemoryDriver({ clock })
  let asked = 0
  const resolve = driver.images.resolve.bind(driver.images)
  driver.images.resolve = (reference, options) => {
    asked++
    options.onProgress?.({ layer: 'l', phase: 'downloading', currentBytes: 1, totalBytes: 2 })
    return resolve(reference, options)
  }
  driver.faults.resolveDelayMs = 100
  return { driver, clock, resolver: new ImageResolver(clock, 5_000), asked: () => asked }
}

test('a thousand callers ask the store once, and each hears of the progress it asked for', async () => {
  const { driver, clock, resolver, asked } = make()
  const heard: PullProgress[] = []
  const all = Array.from({ length: 1_000 }, () => resolver.resolve(driver, BASE_REFERENCE, { signal: new AbortController().signal, onProgress: (progress) => void heard.push(progress) }))
  await clock.advance(100)
  expect(new Set((await Promise.all(all)).map((image) => image.digest)).size).toBe(1)
  expect(asked()).toBe(1)
  expect(driver.counts.prepared).toBe(1)
  expect(heard.length).toBeGreaterThanOrEqual(1)
})

test('an answer is remembered for a while, and forgotten when told', async () => {
  const { driver, clock, resolver, asked } = make()
  const ask = async (): Promise<ResolvedImage> => {
    const answer = resolver.resolve(driver, BASE_REFERENCE, { signal: new AbortController().signal })
    await clock.advance(100)
    return answer
  }
  const image = await ask()
  expect(resolver.peek(driver, BASE_REFERENCE)).toEqual(image)
  await clock.advance(5_000)
  expect(resolver.peek(driver, BASE_REFERENCE)).toBeUndefined()
  await ask()
  resolver.invalidate()
  expect(resolver.peek(driver, BASE_REFERENCE)).toBeUndefined()
  expect(asked()).toBe(2)
})

test('one caller that leaves does not end the pull of the others; the last one does', async () => {
  const { driver, clock, resolver } = make()
  const [first, second] = [new AbortController(), new AbortController()]
  let aborted = false
  const resolve = driver.images.resolve.bind(driver.images)
  driver.images.resolve = (reference, options) => {
    options.signal.addEventListener('abort', () => { aborted = true })
    return resolve(reference, options)
  }
  const codes = [first, second].map(({ signal }) => resolver.resolve(driver, BASE_REFERENCE, { signal }).then(() => 'resolved', (error: unknown) => (error instanceof FaasError ? error.code : 'other')))
  const gone = new FaasError('execution/cancelled', { message: 'gone' })
  first.abort(gone)
  expect(await codes[0]).toBe('execution/cancelled')
  expect(aborted).toBe(false)
  second.abort(gone)
  expect(await codes[1]).toBe('execution/cancelled')
  expect(aborted).toBe(true)
  await clock.advance(200)
})
