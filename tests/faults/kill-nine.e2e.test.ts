/**
 * `kill -9` of the gateway at random moments: under load, and while it starts after the kill before.
 *
 * K1. Every accepted asynchronous execution reaches exactly one end; a submission repeated with its idempotency key after
 *     a lost answer is the same execution.
 * K2. A result that was seen once is never another one later.
 * K3. What must not run twice did not: it has its result, or says that it was interrupted.
 * K4. After the last kill and one ordinary life nothing of any killed gateway is left on the host.
 *
 * Two gateways with a data directory each are killed side by side, so that one's reclaim would be seen in the other's work.
 * FAAS_KILLS sets the number of kills (default 100, which is what CI runs); FAAS_SEED repeats a failing run.
 */
import { FaaSClient, FaaSError } from '@faas-platform/sdk'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DataDir, makeDataDir } from '../support/data-dir.js'
import { freePort, type GatewayProcess, imagesImported, spawnGateway, startGateway } from '../support/gateway-process.js'
import { type HostResources, hostResources } from '../support/host-resources.js'
import { call, events } from '../support/http.js'
import { randomSource } from '../support/random.js'
import { HostRuntimes } from '../support/runtimes.js'

const KILLS = Number(process.env['FAAS_KILLS'] ?? 100)
const SEED = Number(process.env['FAAS_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
/** Longest time between the begin of load and the kill. */
const KILL_AFTER_MS_MAX = 400
/** Every so many kills, one comes while the gateway starts; at the longest so long after its process began. */
const START_KILL_SHARE = 0.2
const START_KILL_MS_MAX = 1500
const EGRESS_SHARE = 0.3
const JOBS_PER_ROUND = 2
const RUNS_PER_ROUND = 3
/** Of each lane: only what it uses is probed at its starts. */
const RUNTIMES = [['runc', 'gvisor', 'docker'], ['crun', 'gvisor', 'docker']] as const

interface Job {
  readonly word: string
  readonly runtime: string
  readonly pauseS: string
  readonly network: 'none' | 'egress'
  readonly rerunnable: boolean
  /** Known once the gateway acknowledged it. */
  id: string | null
  /** The end that was seen first. */
  seen: unknown
}

interface Lane {
  readonly dataDir: DataDir
  readonly port: number
  readonly random: () => number
  readonly name: string
  readonly env: Readonly<Record<string, string>>
  readonly jobs: Job[]
  runtimes: readonly string[]
  /** Those that have an outbound network. */
  egress: readonly string[]
  gateway: GatewayProcess | null
  kills: number
  startKills: number
  /** Kills after which something was left for the next life to free. */
  messes: number
}

describe(`kill -9 under load (seed ${SEED})`, () => {
  const lanes: Lane[] = []
  const reasons = new Set<string>()

  beforeAll(async () => {
    for (const [i, wanted] of RUNTIMES.entries()) {
      const dataDir = await makeDataDir('kill')
      const env = { FAAS_PREWARM: '1', FAAS_MAX_INSTANCES: '1000', FAAS_RUNTIMES: wanted.join(','), ...dataDir.env }
      const lane: Lane = { dataDir, port: await freePort(), random: randomSource(SEED + i), name: `lane${i}`, env, jobs: [], runtimes: [], egress: [], gateway: null, kills: 0, startKills: 0, messes: 0 }
      lanes.push(lane)
      // One ordinary life first: what a gateway leaves in its data directory for good is no leak.
      const gateway = await startGateway({ dataDir: dataDir.path, port: lane.port, env })
      const host = await HostRuntimes.of(gateway)
      lane.runtimes = host.usable(wanted)
      for (const gate of wanted.map((name) => host.gate(name))) if (gate.missing) reasons.add(gate.reason)
      const egress = (name: string): boolean => !host.gate(name, ({ features }) => features.network.includes('egress')).missing
      lane.egress = lane.runtimes.filter(egress)
      if (lane.runtimes.length > 0) await imagesImported(gateway) // or they would be brought in again and again by lives that are too short for it
      await gateway.kill('SIGTERM')
    }
    for (const reason of reasons) console.warn(`left out: ${reason}`)
  })

  afterAll(async () => {
    for (const lane of lanes) {
      await lane.gateway?.[Symbol.asyncDispose]()
      await lane.dataDir[Symbol.asyncDispose]()
    }
  })

  it(`loses no accepted job, ends each once, and leaks nothing in ${KILLS} kills`, async ({ skip }) => {
    skip(lanes.some((lane) => lane.runtimes.length === 0), [...reasons].join('; '))
    const before = await Promise.all(lanes.map((lane) => hostResources(lane.dataDir)))

    await Promise.all(lanes.map((lane, i) => killAgainAndAgain(lane, Math.ceil(KILLS / lanes.length), before[i])))
    const kills = lanes.reduce((sum, lane) => sum + lane.kills, 0)
    expect(kills).toBeGreaterThanOrEqual(KILLS)

    for (const lane of lanes) await checkEnds(lane)
    const jobs = lanes.flatMap((lane) => lane.jobs)
    expect(jobs.length).toBeGreaterThan(0)
    // A kill that leaves nothing proves nothing.
    expect(lanes.reduce((sum, lane) => sum + lane.messes, 0)).toBeGreaterThan(kills / 2)
    console.info(`${kills} kills (${lanes.reduce((sum, lane) => sum + lane.startKills, 0)} while starting), ${jobs.length} jobs on ${[...new Set(lanes.flatMap((lane) => lane.runtimes))].join(', ')}`)

    // K4. Docker and the kernel finish removals a moment after they were asked to.
    for (const [i, lane] of lanes.entries()) {
      await lane.gateway?.kill('SIGTERM')
      lane.gateway = null
      await eventually(async () => {
        expect(await hostResources(lane.dataDir)).toEqual(before[i])
        return true
      }, { deadlineMs: 30_000, everyMs: 250, what: 'nothing of the killed gateways left on the host' })
    }
  }, Math.max(180_000, KILLS * 10_000))
})

async function killAgainAndAgain(lane: Lane, kills: number, clean: HostResources | undefined): Promise<void> {
  while (lane.kills < kills) {
    const { gateway, serving } = await spawnGateway({ dataDir: lane.dataDir.path, port: lane.port, env: lane.env })
    lane.gateway = gateway
    if (lane.random() < START_KILL_SHARE) {
      await pauseFor(lane.random() * START_KILL_MS_MAX)
      lane.startKills++
    } else {
      await started(gateway, serving)
      const load = putUnderLoad(lane, gateway)
      await pauseFor(lane.random() * KILL_AFTER_MS_MAX)
      await gateway.kill('SIGKILL')
      await load
    }
    await gateway.kill('SIGKILL')
    expect(await gateway.exited, `the gateway ended by itself:\n${gateway.log()}`).toBeNull()
    lane.kills++
    const left = await hostResources(lane.dataDir)
    if (clean !== undefined && left.containers + left.processes + left.cgroups + left.directories > clean.containers + clean.processes + clean.cgroups + clean.directories) lane.messes++
  }
}

async function started(gateway: GatewayProcess, serving: Promise<void>): Promise<void> {
  await Promise.race([serving, gateway.exited.then((code) => Promise.reject(new Error(`The gateway ended with ${code}:\n${gateway.log()}`)))])
}

/** New submissions, those whose answer was lost, reading of earlier ends, and synchronous runs side by side, until the gateway dies. */
async function putUnderLoad(lane: Lane, gateway: GatewayProcess): Promise<void> {
  const { random, runtimes, egress } = lane
  const client = new FaaSClient({ baseUrl: gateway.url, maxRetries: 1 })
  const pick = (): string => runtimes[Math.floor(random() * runtimes.length)] ?? 'runc'
  for (let i = 0; i < JOBS_PER_ROUND; i++) {
    const runtime = pick()
    const network = random() < EGRESS_SHARE && egress.includes(runtime) ? 'egress' : 'none'
    lane.jobs.push({ word: `${lane.name}-${lane.kills}-${i}`, runtime, network, pauseS: (random() * 0.2).toFixed(2), rerunnable: random() < 0.8, id: null, seen: null })
  }
  const runs = Array.from({ length: RUNS_PER_ROUND }, () => ({ runtime: pick(), pauseS: (random() * 0.2).toFixed(2) }))
  const calls = [
    ...lane.jobs.filter((job) => job.id === null).map((job) => submit(gateway.url, job)),
    ...lane.jobs.filter((job) => job.id !== null && job.seen === null).map((job) => lookAt(gateway.url, job)),
    createInstance(gateway.url, pick()),
    ...runs.map(async ({ runtime, pauseS }) => {
      const result = await client.execute({ image: null, command: `sleep ${pauseS}; echo done`, runtime: runtime as 'runc', timeoutMs: 60_000 })
      expect([result.stdout, result.exitCode]).toEqual(['done\n', 0])
    }),
  ]
  // Calls end by the kill; nothing else may end them.
  for (const settled of await Promise.allSettled(calls)) {
    if (settled.status === 'rejected' && !isConnectionLoss(settled.reason)) throw settled.reason
  }
}

async function submit(url: string, job: Job): Promise<void> {
  const { status, body } = await call(`${url}/api/v1/execute`, { headers: { 'idempotency-key': job.word }, body: requestOf(job) })
  expect({ status, body }).toMatchObject({ status: 202 })
  job.id = String(body['request_id'])
}

/** One that nobody stops: instances end with their gateway. */
async function createInstance(url: string, runtime: string): Promise<void> {
  const { status, body } = await call(`${url}/api/v1/instances`, { body: { runtime } })
  expect({ status, body }).toMatchObject({ status: 200 })
}

function requestOf(job: Job): object {
  return { command: `sleep ${job.pauseS}; echo ${job.word}`, runtime: job.runtime, network: job.network, timeout_ms: 60_000, async: true, rerunnable: job.rerunnable, labels: { job: job.word } }
}

/** K2. */
async function lookAt(url: string, job: Job): Promise<void> {
  const { status, body } = await call(`${url}/api/v1/executions/${job.id}`)
  expect({ job: job.word, status }).toEqual({ job: job.word, status: 200 })
  if (body['result'] !== null) job.seen ??= body['result']
}

/** K1, K2, K3. */
async function checkEnds(lane: Lane): Promise<void> {
  const gateway = await startGateway({ dataDir: lane.dataDir.path, port: lane.port, env: lane.env })
  lane.gateway = gateway
  // What was never acknowledged is handed in once more: it is either known already, or new.
  for (const job of lane.jobs.filter((one) => one.id === null)) await submit(gateway.url, job)
  const known = await listed(gateway.url)
  for (const job of lane.jobs) {
    expect(known.filter((one) => one.word === job.word), job.word).toEqual([{ word: job.word, id: job.id }])
    const ends = []
    let output = ''
    let next = 0
    for await (const event of events(`${gateway.url}/api/v1/executions/${job.id}/stream`)) {
      expect(event.data['seq'], `${job.word}: events without gaps`).toBe(next++)
      if (event.event === 'stdout') output += String(event.data['data'])
      if (event.event === 'end') ends.push(event.data['result'] as Readonly<Record<string, unknown>>)
    }
    expect(ends, job.word).toHaveLength(1)
    const [end] = ends
    const { body } = await call(`${gateway.url}/api/v1/executions/${job.id}`)
    expect(body['result'], job.word).toEqual(end)
    if (job.seen !== null) expect(end, job.word).toEqual(job.seen)
    if (end?.['error_code'] === 'execution/interrupted') {
      expect(job.rerunnable, job.word).toBe(false)
      continue
    }
    expect({ word: job.word, output, stdout: end?.['stdout'], exit_code: end?.['exit_code'], error: end?.['error'] })
      .toEqual({ word: job.word, output: `${job.word}\n`, stdout: `${job.word}\n`, exit_code: 0, error: null })
    if (!job.rerunnable) expect(body['attempt'], job.word).toBe(1)
  }
}

/** Every execution that carries a job's label. */
async function listed(url: string): Promise<readonly { readonly word: string; readonly id: string }[]> {
  const found: { word: string; id: string }[] = []
  for (let cursor: unknown = ''; cursor !== null; ) {
    const { body } = await call(`${url}/api/v1/executions?limit=1000${cursor === '' ? '' : `&cursor=${String(cursor)}`}`)
    for (const execution of body['executions'] as readonly { readonly request_id: string; readonly labels: Readonly<Record<string, string>> }[]) {
      const word = execution.labels['job']
      if (word !== undefined) found.push({ word, id: execution.request_id })
    }
    cursor = body['next_cursor']
  }
  return found
}

/** As `fetch` and the SDK tell it. */
function isConnectionLoss(reason: unknown): boolean {
  if (reason instanceof FaaSError) return reason.code === 'client/connection-failed'
  return reason instanceof TypeError && /fetch failed|terminated/.test(reason.message)
}

/** The moment of the kill is the experiment, not a wait for a condition. */
function pauseFor(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
