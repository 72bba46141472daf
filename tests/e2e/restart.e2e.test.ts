/** Ends and beginnings of gateways: drains, restarts, locks, and two gateways on one host. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { eventually, within } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DataDir, makeDataDir } from '../support/data-dir.js'
import { type GatewayProcess, imagesImported, REPO_ROOT, startGateway } from '../support/gateway-process.js'
import { hostResources } from '../support/host-resources.js'
import { call, execute } from '../support/http.js'
import { HostRuntimes } from '../support/runtimes.js'

let dataDir: DataDir
let gateway: GatewayProcess
let runtimes: readonly string[]

const restarted = async (env: Readonly<Record<string, string>> = {}): Promise<GatewayProcess> => {
  gateway = await startGateway({ dataDir: dataDir.path, env: { FAAS_PREWARM: '1', ...dataDir.env, ...env } })
  return gateway
}

beforeAll(async () => {
  dataDir = await makeDataDir('restart')
  await restarted()
  runtimes = (await HostRuntimes.of(gateway)).usable(['runc', 'gvisor', 'docker'])
})

afterAll(async () => {
  await gateway?.kill('SIGTERM')
  await dataDir?.[Symbol.asyncDispose]()
})

function onRuntimes(title: string, test: () => Promise<void>, timeoutMs = 60_000): void {
  it(title, async ({ skip }) => {
    skip(runtimes.length === 0, 'no runtime is usable on this host')
    await test()
  }, timeoutMs)
}

const stateOf = async (id: string): Promise<unknown> => (await call(`${gateway.url}/api/v1/executions/${id}`)).body['status']
const submit = async (body: object): Promise<string> => {
  const reply = await execute(gateway.url, { async: true, timeout_ms: 60_000, ...body })
  expect(reply.status).toBe(202)
  return String(reply.body['request_id'])
}
const resultOf = (id: string): Promise<Readonly<Record<string, unknown>>> =>
  eventually(async () => (await call(`${gateway.url}/api/v1/executions/${id}`)).body['result'] as Record<string, unknown> | null, { deadlineMs: 40_000, everyMs: 50, what: `the end of ${id}` })

describe('an asynchronous execution', () => {
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    onRuntimes(`survives ${signal} of the gateway: what waited or ran is finished by the next one`, async () => {
      await gateway.kill('SIGTERM')
      // Two places, one of them for asynchronous work, and no patience with what runs.
      await restarted({ FAAS_MAX_CONCURRENCY: '2', FAAS_DRAIN_MS: '200' })
      const [first = '', ...others] = await Promise.all(runtimes.map((runtime) => submit({ command: 'sleep 1; echo finished', runtime })))
      const key = `${signal}-key`
      const keyed = await execute(gateway.url, { command: 'echo keyed', async: true }, { headers: { 'idempotency-key': key } })
      await eventually(async () => (await stateOf(first)) === 'running', { deadlineMs: 20_000, everyMs: 20, what: 'the first to run' })
      await gateway.kill(signal)

      await restarted()
      for (const id of [first, ...others]) expect(await resultOf(id)).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: 'finished\n' })
      const again = await execute(gateway.url, { command: 'echo keyed', async: true }, { headers: { 'idempotency-key': key } })
      expect(again.body['request_id']).toBe(keyed.body['request_id'])
      expect(await resultOf(String(keyed.body['request_id']))).toMatchObject({ stdout: 'keyed\n' })
    })
  }

  onRuntimes('that must not run twice says that it was interrupted', async () => {
    const id = await submit({ command: 'echo began; sleep 300', rerunnable: false })
    await eventually(async () => (await call(`${gateway.url}/api/v1/executions/${id}/logs?format=text`)).text === 'began\n', { deadlineMs: 20_000, everyMs: 20, what: 'it to begin' })
    await gateway.kill('SIGKILL')
    await restarted()
    expect(await resultOf(id)).toMatchObject({ outcome: 'error', error_code: 'execution/interrupted' })
    expect(await stateOf(id)).toBe('failed')
  })

  onRuntimes('that ended before keeps its result and its log', async () => {
    const id = await submit({ command: 'echo kept; echo err >&2; exit 9' })
    const result = await resultOf(id)
    await gateway.kill('SIGKILL')
    await restarted()
    expect(await resultOf(id)).toEqual(result)
    expect((await call(`${gateway.url}/api/v1/executions/${id}/logs?format=text`)).text.split('\n').sort()).toEqual(['', 'err', 'kept'])
  })
})

describe('a drain', () => {
  onRuntimes('lets what runs end, refuses what comes, and ends well', async () => {
    const running = execute(gateway.url, { command: 'echo began; until [ -e /tmp/never ] || [ $((i+=1)) -gt 40 ]; do sleep 0.05; done; echo ended', runtime: runtimes[0], timeout_ms: 30_000, labels: { test: 'drain' } })
    await eventually(async () => ((await call(`${gateway.url}/api/v1/executions?state=running`)).body['executions'] as unknown[]).length > 0, { deadlineMs: 20_000, everyMs: 10, what: 'it to run' })
    gateway.signal('SIGTERM')
    await eventually(async () => (await call(`${gateway.url}/health`)).body['status'] === 'draining', { everyMs: 10, what: 'the drain' })
    const refused = await execute(gateway.url, { command: 'true' })
    expect(refused).toMatchObject({ status: 503, body: { error: { code: 'admission/draining' } } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
    expect(await running).toMatchObject({ status: 200, body: { stdout: 'began\nended\n', exit_code: 0 } })
    expect(await within(20_000, 'the end', gateway.exited)).toBe(0)
    await restarted()
  })

  onRuntimes('leaves nothing on the host: no sandbox, no process, no rule', async () => {
    for (const runtime of runtimes) await execute(gateway.url, { command: 'true', runtime })
    await call(`${gateway.url}/api/v1/instances`, { body: { runtime: runtimes[0] } })
    await gateway.kill('SIGTERM')
    const { directories: _files, ...left } = await hostResources(dataDir)
    expect(left).toEqual({
      mounts: 0, cgroups: 0, networkNamespaces: 0, processes: 0, containers: 0, volumes: 0, engineNetworks: 0, links: 0, firewallLines: 0, temporaryFiles: [], runFiles: [],
    })
    await restarted()
  })
})

describe('a data directory', () => {
  it('belongs to one gateway: a second one says so and ends', async () => {
    const second = spawn(process.execPath, [path.join(REPO_ROOT, 'apps/cli/dist/main.js'), 'gateway'], {
      env: { ...process.env, FAAS_PORT: '0', FAAS_DATA_DIR: dataDir.path, ...dataDir.env }, stdio: ['ignore', 'ignore', 'pipe'],
    })
    let said = ''
    second.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
    const [code] = (await within(20_000, 'the second gateway to end', once(second, 'close'))) as [number]
    expect(code).not.toBe(0)
    expect(said).toMatch(/Another process uses this data directory[\s\S]*FAAS_DATA_DIR/)
    expect((await call(`${gateway.url}/health`)).status).toBe(200)
  })
})

describe('two gateways on one host', () => {
  onRuntimes('leave each other alone, however one of them ends', async () => {
    await using otherDir = await makeDataDir('other')
    const instances = await Promise.all(runtimes.map(async (runtime) => {
      const { body } = await call(`${gateway.url}/api/v1/instances`, { body: { runtime } })
      return `${gateway.url}/api/v1/instances/${String(body['id'])}`
    }))
    for (const url of instances) await call(`${url}/exec`, { body: { command: 'echo mine > /tmp/mark' } })
    const start = (): Promise<GatewayProcess> => startGateway({ dataDir: otherDir.path, env: { FAAS_PREWARM: '1', ...otherDir.env } })

    const other = await start()
    await imagesImported(other)
    for (const runtime of runtimes) expect((await execute(other.url, { command: 'echo theirs', runtime })).body['stdout']).toBe('theirs\n')
    await other.kill('SIGKILL')
    const successor = await start() // It reclaims what the killed one left.
    await successor.kill('SIGTERM')

    for (const url of instances) expect((await call(`${url}/exec`, { body: { command: 'cat /tmp/mark' } })).body['stdout']).toBe('mine\n')
    // A helper of the killed one may still be on its way out.
    await eventually(async () => {
      expect(await hostResources(otherDir)).toMatchObject({ cgroups: 0, processes: 0, containers: 0, links: 0, firewallLines: 0, mounts: 0 })
      return true
    }, { deadlineMs: 10_000, everyMs: 100, what: 'nothing of the other gateway left' })
    for (const url of instances) await call(url, { method: 'DELETE' })
  })
})
