/** The platform's own subjects: executors in this process over real drivers, and a gateway over one of them. */
import { systemClock } from '../../packages/core/dist/index.js'

const MIB = 2 ** 20
export const PRINCIPAL = 'bench'

/** @param {string} runtime */
export function helloRequest(runtime, image = 'faas/base:latest') {
  return {
    argv: ['/bin/echo', 'hello'], image, runtime, isolationFloor: 'none', mode: 'ephemeral', timeoutMs: 60_000,
    limits: { memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 256 * MIB },
    network: { mode: 'none', allowCidrs: [] }, env: {}, outputBytesMax: MIB, logBytesMax: MIB, rerunnable: true, labels: {},
  }
}

/** One hello through the executor. @returns the result; throws when it is not the right one */
export async function hello(executor, runtime) {
  const result = await executor.run(helloRequest(runtime), { principal: PRINCIPAL, signal: AbortSignal.timeout(120_000) })
  if (result.exitCode !== 0 || Buffer.from(result.stdout.bytes).toString() !== 'hello\n') {
    throw new Error(`${runtime} answered ${result.outcome} ${result.exitCode}: ${result.message ?? ''}`)
  }
  return result
}

/** Waits until at least `count` sandboxes of the runtime are ready, so that a warm figure is of a warm start. */
export async function untilWarm(executor, runtime, count = 1, deadlineMs = 60_000) {
  const end = performance.now() + deadlineMs
  for (;;) {
    const ready = executor.pools().filter((pool) => pool.runtime === runtime).reduce((sum, pool) => sum + pool.ready, 0)
    if (ready >= count) return
    if (performance.now() > end) throw new Error(`${runtime}: only ${ready} of ${count} sandboxes became ready`)
    await systemClock.delay(5)
  }
}

/** Waits until nothing is made or taken down in the background. */
export async function untilSettled(executor, deadlineMs = 60_000) {
  const end = performance.now() + deadlineMs
  for (;;) {
    const { teardown } = executor.metrics()
    if (teardown.backlog === 0 && executor.pools().every((pool) => pool.creating === 0 && pool.waiting === 0)) return
    if (performance.now() > end) throw new Error('the executor does not come to rest')
    await systemClock.delay(2)
  }
}

/** A hello that is sure to be warm; the wait for the pool is not part of the figure. */
export function warmSubject(executor, runtime) {
  return async () => {
    await untilWarm(executor, runtime)
    const start = performance.now()
    const result = await hello(executor, runtime)
    const elapsed = performance.now() - start
    if (result.start !== 'warm') throw new Error(`${runtime}: the start was ${result.start}, not warm`)
    return elapsed
  }
}

export function coldSubject(executor, runtime) {
  return async () => {
    const start = performance.now()
    const result = await hello(executor, runtime)
    const elapsed = performance.now() - start
    if (result.start !== 'cold') throw new Error(`${runtime}: the start was ${result.start}, not cold`)
    return elapsed
  }
}

/** `count` calls at once. @returns each call's latency, ms */
export async function burst(executor, runtime, count) {
  const latencies = await Promise.all(Array.from({ length: count }, async () => {
    const start = performance.now()
    await hello(executor, runtime)
    return performance.now() - start
  }))
  return latencies
}

/** Calls with a fixed concurrency for a bounded time. @returns executions per second */
export async function sustained(executor, runtime, concurrency, durationMs) {
  const begin = performance.now()
  let count = 0
  await Promise.all(Array.from({ length: concurrency }, async () => {
    while (performance.now() - begin < durationMs) {
      await hello(executor, runtime)
      count++
    }
  }))
  return count / ((performance.now() - begin) / 1000)
}
