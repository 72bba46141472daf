/**
 * `kill -9` of the gateway at random moments under load. After every restart each accepted asynchronous execution
 * reaches exactly one end; after the last one nothing of any killed gateway is left on the host.
 *
 * FAAS_KILLS sets the number of kills (default 100, which is what CI runs); FAAS_SEED repeats a failing run.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { FaaSClient } from '@faas-platform/sdk'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { freePort, type GatewayProcess, startGateway } from '../support/gateway-process.js'
import { hostResources } from '../support/host-resources.js'
import { usableRuntimes } from '../support/runtimes.js'

const KILLS = Number(process.env['FAAS_KILLS'] ?? 100)
const SEED = Number(process.env['FAAS_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
/** Longest time between the begin of load and the kill. */
const KILL_AFTER_MS_MAX = 400

/** Mulberry32: a failing run is repeated by its seed. */
function randomSource(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

describe(`kill -9 under load (seed ${SEED})`, () => {
  let dataDir = ''
  let port = 0
  let runtimes: readonly string[] = []
  let gateway: GatewayProcess | undefined

  beforeAll(async () => {
    dataDir = await mkdtemp(path.join(tmpdir(), 'faas-kill-'))
    port = await freePort()
    runtimes = await usableRuntimes(['runc', 'gvisor', 'docker'])
  })

  afterAll(async () => {
    await gateway?.[Symbol.asyncDispose]()
    await rm(dataDir, { recursive: true, force: true })
  })

  it(`loses no accepted job and leaks nothing in ${KILLS} kills`, async () => {
    const random = randomSource(SEED)
    const accepted = new Map<string, string>() // request id → the word it must print
    const before = await hostResources(dataDir)

    for (let kill = 0; kill < KILLS; kill++) {
      gateway = await startGateway({ dataDir, port, env: { FAAS_PREWARM: '1' } })
      const load = putUnderLoad(gateway.url, runtimes, random, accepted, kill)
      await pauseFor(random() * KILL_AFTER_MS_MAX)
      await gateway.kill('SIGKILL')
      await load
    }

    gateway = await startGateway({ dataDir, port })
    const client = new FaaSClient({ baseUrl: gateway.url })
    for (const [id, word] of accepted) {
      const result = await client.executions.wait(id, { timeoutMs: 120_000 })
      expect({ id, stdout: result.stdout, exitCode: result.exitCode }).toEqual({ id, stdout: `${word}\n`, exitCode: 0 })
    }
    expect(accepted.size).toBeGreaterThan(0)
    await gateway.kill('SIGTERM')
    gateway = undefined

    // Docker and the kernel finish removals a moment after they were asked to.
    await eventually(async () => {
      expect(await hostResources(dataDir)).toEqual(before)
      return true
    }, { deadlineMs: 30_000, everyMs: 250, what: 'nothing of the killed gateways left on the host' })
  }, Math.max(120_000, KILLS * 10_000))
})

/** Asynchronous submissions (recorded once acknowledged) and synchronous runs side by side, until the gateway dies. */
async function putUnderLoad(url: string, runtimes: readonly string[], random: () => number, accepted: Map<string, string>, round: number): Promise<void> {
  const client = new FaaSClient({ baseUrl: url, maxRetries: 1 })
  const jobs = Array.from({ length: 6 }, async (_, i) => {
    const runtime = runtimes[Math.floor(random() * runtimes.length)] as 'runc'
    const word = `job-${round}-${i}`
    const pauseS = (random() * 0.2).toFixed(2)
    const request = { image: null, command: `sleep ${pauseS}; echo ${word}`, runtime, timeoutMs: 60_000 } as const
    if (i % 2 === 0) {
      const { requestId } = await client.submit(request)
      accepted.set(requestId, word)
    } else {
      await client.execute(request)
    }
  })
  // Calls end by the kill; only what was acknowledged before it counts.
  for (const settled of await Promise.allSettled(jobs)) {
    if (settled.status === 'rejected') expect(settled.reason).toMatchObject({ code: 'client/connection-failed' })
  }
}

/** The moment of the kill is the experiment, not a wait for a condition. */
function pauseFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
