/** What the gateway adds to the executor, and what an idle sandbox costs. */
import { readdirSync, readFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { buildGateway } from '../../apps/gateway/dist/index.js'
import { loadConfig } from '../../packages/config/dist/index.js'
import { systemClock, systemIds } from '../../packages/core/dist/index.js'
import { openExecutors } from './open-executors.mjs'
import { interleave } from './interleave.mjs'
import { round } from './stats.mjs'
import { hello, untilWarm } from './subjects.mjs'

const MIB = 2 ** 20

/**
 * The same warm hello on the fastest runtime, by a call and over HTTP on 127.0.0.1, one after the other in turn.
 * The pool is kept full between the two, so the difference is the gateway.
 */
export async function gatewaySection(rounds) {
  const opened = await openExecutors({ pool: true })
  const { executor, runtimes } = opened
  const runtime = ['crun', 'runc', 'docker', 'gvisor'].find((name) => runtimes.includes(name))
  const { config } = loadConfig([], { ...process.env, FAAS_PORT: '0', FAAS_LOG_LEVEL: 'silent' })
  const { pino } = await import('pino')
  const gateway = await buildGateway({ executor, ledger: opened.ledger, config, clock: systemClock, ids: systemIds, log: pino({ level: 'silent' }) })
  await gateway.app.listen({ host: '127.0.0.1', port: 0 })
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const port = gateway.app.server.address().port
  const body = JSON.stringify({ command: ['/bin/echo', 'hello'], image: 'faas/base:latest', runtime, memory_mb: 256, cpu_cores: 1, limits: { pids: 64, disk_mb: 256 } })
  try {
    await opened.prewarm(runtime, 4)
    const timed = (call) => async () => {
      await untilWarm(executor, runtime, 2)
      const start = performance.now()
      await call()
      return performance.now() - start
    }
    const { summaries, samples } = await interleave(
      [{ name: 'executor', run: timed(() => hello(executor, runtime)) }, { name: 'gateway', run: timed(() => post(agent, port, body)) }],
      rounds,
      { warmUp: 10 },
    )
    return { runtime, ...summaries, overheadP50Ms: round(summaries.gateway.p50 - summaries.executor.p50), samples }
  } finally {
    agent.destroy()
    await gateway.app.close()
    await opened.close()
  }
}

function post(agent, port, body) {
  return new Promise((resolve, reject) => {
    const call = request({ agent, port, host: '127.0.0.1', path: '/api/v1/execute', method: 'POST', headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } }, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => (text += chunk)).on('error', reject).on('end', () => {
        const reply = JSON.parse(text)
        if (reply.stdout === 'hello\n') resolve(reply)
        else reject(new Error(`the gateway answered ${text.slice(0, 500)}`))
      })
    })
    call.on('error', reject).end(body)
  })
}

/** Host memory of ten idle sandboxes: proportional set size of every process that came with them, divided by ten. */
export async function memorySection(executor, prewarm, runtime) {
  const COUNT = 10
  await prewarm(runtime, 2)
  await untilWarm(executor, runtime, 2)
  const before = pssByPid()
  await prewarm(runtime, 2 + COUNT)
  await untilWarm(executor, runtime, 2 + COUNT, 120_000)
  const after = pssByPid()
  let added = 0
  for (const [pid, bytes] of after) if (!before.has(pid)) added += bytes
  const pool = executor.pools().find((entry) => entry.runtime === runtime)
  return { count: COUNT, pssMib: round(added / COUNT / MIB, 2), cgroupMib: round((pool?.idleMemoryBytes ?? 0) / MIB, 2) }
}

/** Bytes per process of this host; kernel threads and what ended meanwhile are left out. */
function pssByPid() {
  const pss = new Map()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const match = /^Pss:\s+(\d+) kB/m.exec(readFileSync(`/proc/${name}/smaps_rollup`, 'utf8'))
      if (match !== null) pss.set(name, Number(match[1]) * 1024)
    } catch (error) {
      if (!['ENOENT', 'ESRCH', 'EACCES'].includes(error.code)) throw error
    }
  }
  return pss
}
