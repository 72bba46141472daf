/**
 * What the gateway adds to the executor: the same request over keep-alive HTTP and straight into the executor,
 * taken in turns on one in-memory driver, so that both see the same machine. Build first: npx tsc -b apps/gateway packages/testkit
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseConfig } from '@faas-platform/config'
import { silentLog, systemClock, systemIds } from '@faas-platform/core'
import { defaultExecutorConfig, Executor } from '@faas-platform/executor'
import { buildGateway, wirePolicy } from '@faas-platform/gateway'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { toExecuteRequest } from '@faas-platform/protocol'
import { MemoryDriver } from '@faas-platform/testkit'
import { pino } from 'pino'

const ROUNDS = Number(process.argv[2] ?? 2000)
const WARM_UP = 300

const dataDir = mkdtempSync(join(tmpdir(), 'faas-overhead-'))
const { config } = parseConfig({ argv: [], env: { FAAS_DATA_DIR: dataDir }, host: { isRoot: true, homeDir: '/', cpuCount: 2, totalMemoryBytes: 2 ** 32, xdgDataHome: undefined }, readFile: () => '' })
const ledger = await openLedger({ dataDir, log: silentLog })
const executor = new Executor({
  drivers: [new MemoryDriver()], ledger, logStore: new FsLogStore({ dir: join(dataDir, 'logs') }), clock: systemClock, ids: systemIds, log: silentLog,
  config: { ...defaultExecutorConfig({ cores: 2, memoryBytes: 2 ** 32 }), runtimePreference: ['memory'] },
})
await executor.start()
// Logs as in production, to a file: their cost is part of the overhead.
const log = pino({ level: 'info' }, pino.destination({ dest: join(dataDir, 'log'), sync: false }))
const { app } = await buildGateway({ executor, ledger, config, clock: systemClock, ids: systemIds, log })
await app.listen({ host: '127.0.0.1', port: 0 })
const { port } = app.server.address()
const agent = new Agent({ keepAlive: true, maxSockets: 1 })

const body = JSON.stringify({ command: ['echo', 'hello'], env_vars: [['A', 'b']], cache_key: 'k' })
const direct = toExecuteRequest(JSON.parse(body), wirePolicy(config))

function overHttp() {
  return new Promise((resolve, reject) => {
    const call = request({ agent, host: '127.0.0.1', port, method: 'POST', path: '/api/v1/execute', headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) } }, (response) => {
      const chunks = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('end', () => {
        const answer = JSON.parse(Buffer.concat(chunks).toString())
        if (response.statusCode !== 200 || answer.stdout !== 'hello\n') reject(new Error(`unexpected answer ${response.statusCode}`))
        else resolve()
      })
    })
    call.on('error', reject)
    call.end(body)
  })
}

async function bare() {
  const result = await executor.run(direct, { principal: 'local', signal: new AbortController().signal })
  if (result.exitCode !== 0) throw new Error('unexpected result')
}

async function time(work) {
  const start = performance.now()
  await work()
  return performance.now() - start
}

const http = []
const plain = []
for (let round = 0; round < ROUNDS + WARM_UP; round++) {
  const [a, b] = round % 2 === 0 ? [await time(overHttp), await time(bare)] : (([y, x]) => [x, y])([await time(bare), await time(overHttp)])
  if (round < WARM_UP) continue
  http.push(a)
  plain.push(b)
}
const quantile = (values, q) => [...values].sort((x, y) => x - y)[Math.min(values.length - 1, Math.floor(values.length * q))]
const row = (values) => ({ p50_ms: round3(quantile(values, 0.5)), p95_ms: round3(quantile(values, 0.95)), p99_ms: round3(quantile(values, 0.99)) })
const round3 = (ms) => Math.round(ms * 1000) / 1000
const httpRow = row(http)
const plainRow = row(plain)
console.log(JSON.stringify({
  date: new Date().toISOString(), node: process.version, cpu: cpus()[0]?.model, cores: cpus().length, samples: ROUNDS,
  http: httpRow, executor: plainRow, overhead_p50_ms: round3(httpRow.p50_ms - plainRow.p50_ms), overhead_p95_ms: round3(httpRow.p95_ms - plainRow.p95_ms),
}, null, 2))

agent.destroy()
await executor.drain(0)
await app.close()
await ledger[Symbol.asyncDispose]()
rmSync(dataDir, { recursive: true, force: true })
