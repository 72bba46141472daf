/** How much time the executor itself adds per execution: in-memory driver, warm pool, one caller. */
import { silentLog } from '@faas-platform/core'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { BASE_REFERENCE, MemoryDriver } from '@faas-platform/testkit'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ALICE, as, makeExecutor, request } from './rig.js'

const ROUNDS = 3_000
const dataDir = mkdtempSync(join(tmpdir(), 'faas-overhead-'))
const percentile = (sorted: readonly number[], p: number): string => `${((sorted[Math.floor(sorted.length * p)] ?? 0) * 1000).toFixed(0)} µs`
const show = (what: string, samples: number[]): void => {
  const sorted = samples.sort((a, b) => a - b)
  console.log(`${what.padEnd(28)} p50 ${percentile(sorted, 0.5)}  p95 ${percentile(sorted, 0.95)}  p99 ${percentile(sorted, 0.99)}  max ${percentile(sorted, 0.9999)}`)
}

const driver = new MemoryDriver()
const ledger = await openLedger({ dataDir, log: silentLog })
const executor = makeExecutor({ drivers: [driver], ledger, logStore: new FsLogStore({ dir: join(dataDir, 'logs') }), config: { pool: { readyMaxPerKey: 8, refillDelayMs: 2 } } })
await executor.start()
const spec = { image: BASE_REFERENCE, runtime: 'auto', isolationFloor: 'none', limits: request('').limits, network: request('').network } as const
await executor.prewarm(spec, 4, { signal: new AbortController().signal })

const image = await driver.images.resolve(BASE_REFERENCE, { pull: 'never', signal: new AbortController().signal })
const bare: number[] = []
for (let n = 0; n < ROUNDS; n++) {
  const { signal } = new AbortController()
  const sandbox = await driver.create({ id: crypto.randomUUID() as never, image, limits: spec.limits, network: spec.network, hostname: 'x', labels: {} }, { signal })
  const startMs = performance.now()
  const handle = await sandbox.exec({ argv: ['true'], env: { PATH: '/bin' } }, { onOutput: () => undefined }, { signal })
  await handle.wait()
  bare.push(performance.now() - startMs)
  await sandbox[Symbol.asyncDispose]()
  await new Promise((resolve) => setTimeout(resolve, 1))
}
const through: number[] = []
let warm = 0
const begun: number[] = []
const phases = new Map<string, number[]>()
const append = (list: number[] | undefined, ms: number): number[] => {
  const whole = list ?? []
  whole.push(ms)
  return whole
}
const probe = request('', { argv: ['true'] })
for (let n = 0; n < ROUNDS; n++) {
  const startMs = performance.now()
  const running = executor.run(probe, as(ALICE))
  begun.push(performance.now() - startMs)
  const result = await running
  through.push(performance.now() - startMs)
  if (result.start === 'warm') warm++
  for (const [phase, ms] of Object.entries(result.timeBudget)) phases.set(phase, append(phases.get(phase), ms))
  // Refill, teardown and ledger get their turn, as they do between two requests.
  await new Promise((resolve) => setTimeout(resolve, 1))
}
show('exec on the driver alone', bare.slice(500))
show('through the executor', through.slice(500))
show('  until run() gave a promise', begun.slice(500))
for (const [phase, samples] of phases) show(`  ${phase}`, samples.slice(500))
const batchStart = performance.now()
await Promise.all(Array.from({ length: 1_000 }, () => executor.run(probe, as(ALICE))))
console.log(`warm ${warm}/${ROUNDS}; 1000 at once: ${(1_000 / ((performance.now() - batchStart) / 1000)).toFixed(0)} executions/s`)
await executor.drain(1_000)
await ledger[Symbol.asyncDispose]()
rmSync(dataDir, { recursive: true })
