/** The TypeScript SDK against a real gateway, in Node and in a real browser. */
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { FaaSAuthError, FaaSClient, FaaSConnectionError, FaaSTimeoutError, type StreamEvent } from '@faas-platform/sdk'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { browserOrReason, PageServer } from '../support/browser.js'
import { CuttingProxy } from '../support/cutting-proxy.js'
import { type DataDir, makeDataDir } from '../support/data-dir.js'
import { type GatewayProcess, imagesImported, REPO_ROOT, startGateway } from '../support/gateway-process.js'
import { HostRuntimes } from '../support/runtimes.js'

const IMAGES_DIR = path.join(process.env['FAAS_TOOLS_DIR'] ?? path.join(REPO_ROOT, '.tools'), 'images')
const run = promisify(execFile)

let dataDir: DataDir
let gateway: GatewayProcess
let pages: PageServer
let client: FaaSClient
let runtimes: readonly string[]

beforeAll(async () => {
  dataDir = await makeDataDir('sdk')
  pages = await PageServer.listen()
  gateway = await startGateway({ dataDir: dataDir.path, env: { FAAS_PREWARM: '0', FAAS_CORS_ORIGINS: pages.origin, ...dataDir.env } })
  client = new FaaSClient(gateway.url)
  runtimes = (await HostRuntimes.of(gateway)).usable()
  if (runtimes.length > 0) await imagesImported(gateway)
})

afterAll(async () => {
  await gateway?.kill('SIGTERM')
  await pages?.[Symbol.asyncDispose]()
  await dataDir?.[Symbol.asyncDispose]()
})

function sdk(title: string, test: () => Promise<void>, timeoutMs = 60_000): void {
  it(title, async ({ skip }) => {
    skip(runtimes.length === 0, 'no runtime is usable on this host')
    await test()
  }, timeoutMs)
}

const textOf = (events: readonly StreamEvent[]): string => events.map((event) => (event.type === 'stdout' ? event.text : '')).join('')

describe('executing', () => {
  sdk('gives the result with its exit code, on each runtime', async () => {
    for (const runtime of runtimes) {
      const result = await client.execute({ command: 'echo "$GREETING"; echo oops >&2; exit 3', envVars: { GREETING: 'hello' }, runtime: runtime as 'runc' })
      expect(result).toMatchObject({ stdout: 'hello\n', stderr: 'oops\n', exitCode: 3, error: 'Process exited with code 3', outcome: 'exited', runtimeUsed: runtime, cacheHit: false })
    }
  })

  sdk('throws a timeout with what was captured', async () => {
    const error: unknown = await client.execute({ command: 'echo so far; sleep 300', timeoutMs: 1500 }).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(FaaSTimeoutError)
    expect(error).toMatchObject({ code: 'execution/deadline', status: 504, stdout: 'so far\n' })
  })

  sdk('throws typed errors with the code of the gateway', async () => {
    await expect(client.execute({ command: 'true', image: 'faas/base:no-such-tag', timeoutMs: 10_000 })).rejects.toMatchObject({ code: expect.stringMatching(/^image\//) })
    await expect(client.executions.get('nope')).rejects.toMatchObject({ code: 'execution/not-found', status: 404 })
    await expect(client.forkExecution('nope', 'true')).rejects.toMatchObject({ code: 'mode/unsupported', status: 501 })
    await expect(new FaaSClient({ baseUrl: 'http://127.0.0.1:9', maxRetries: 1 }).healthCheck()).rejects.toBeInstanceOf(FaaSConnectionError)
  })

  sdk('runs code of other languages in the local stand-ins of their images', async () => {
    const python = await client.runPython('import sys\nprint(sum(range(10)), "it\'s", sys.version_info[0])')
    expect([python.stdout, python.raw['image_stand_in']]).toEqual(["45 it's 3\n", true])
    const node = await client.runJavaScript('console.log([1, 2, 3].map((n) => n * 2).join(), `${process.version.split(".")[0]}`)')
    expect(node.stdout).toMatch(/^2,4,6 v\d+\n$/)
    expect((await client.runBash('printf "%s\\n" "$((6 * 7))"')).stdout).toBe('42\n')
    const other = await client.runPython('print("own image")', { image: 'faas/python:3.11' })
    expect([other.stdout, other.raw['image_stand_in']]).toEqual(['own image\n', false])
  })

  sdk('ends the command when its signal aborts', async () => {
    const abort = new AbortController()
    const label = `abort-${Date.now()}`
    const pending = client.execute({ command: 'sleep 300', signal: abort.signal, labels: { test: label }, timeoutMs: 60_000 })
    pending.catch(() => undefined)
    const find = async (state: string): Promise<string | undefined> => (await client.executions.list({ state })).executions.find((one) => one.labels['test'] === label)?.request_id
    const id = await eventually(() => find('running'), { deadlineMs: 20_000, everyMs: 20, what: 'it to run' })
    abort.abort(new Error('enough'))
    await expect(pending).rejects.toThrow('enough')
    await eventually(async () => (await client.executions.get(id)).status === 'cancelled', { deadlineMs: 15_000, everyMs: 20, what: 'it to be cancelled' })
  })
})

describe('streaming', () => {
  sdk('yields output while the command runs', async () => {
    const instance = await client.instances.create({ image: 'alpine:latest' })
    const events: StreamEvent[] = []
    // The command ends only because this test answers its first line.
    for await (const event of client.instances.execStream(instance.id, 'echo waiting; until [ -e /tmp/answer ]; do sleep 0.02; done; cat /tmp/answer', { timeoutMs: 20_000 })) {
      events.push(event)
      if (event.type === 'stdout' && event.text === 'waiting\n') await client.instances.exec(instance.id, 'echo answered > /tmp/a && mv /tmp/a /tmp/answer')
    }
    expect(textOf(events)).toBe('waiting\nanswered\n')
    expect(events.at(-1)).toMatchObject({ type: 'end', result: { exitCode: 0 } })
    await client.instances.delete(instance.id)
  })

  sdk('ends the command when its loop is left', async () => {
    const label = `left-${Date.now()}`
    for await (const event of client.executeStream({ command: 'echo first; sleep 300', labels: { test: label }, timeoutMs: 60_000 })) if (event.type === 'stdout') break
    await eventually(async () => (await client.executions.list({ state: 'cancelled' })).executions.some((one) => one.labels['test'] === label), { deadlineMs: 15_000, everyMs: 20, what: 'it to be cancelled' })
  })

  sdk('of bytes that are not text is exact', async () => {
    const chunks: Uint8Array[] = []
    for await (const event of client.executeStream({ command: `printf '\\377\\000\\376'` })) if (event.type === 'stdout') chunks.push(event.bytes)
    expect(Buffer.concat(chunks)).toEqual(Buffer.from([0xff, 0, 0xfe]))
  })
})

describe('handing over', () => {
  sdk('submits, waits, reads the log, follows from the middle and cancels', async () => {
    const { requestId } = await client.submit({ command: 'for i in 1 2 3; do echo line $i; sleep 0.05; done; exit 5' })
    expect(await client.executions.wait(requestId)).toMatchObject({ exitCode: 5, stdout: 'line 1\nline 2\nline 3\n' })
    expect(await client.executions.logs(requestId)).toBe('line 1\nline 2\nline 3\n')
    const all: StreamEvent[] = []
    for await (const event of client.executions.stream(requestId)) all.push(event)
    const second = all.find((event) => event.type === 'stdout' && event.text === 'line 2\n')
    const late: StreamEvent[] = []
    for await (const event of client.executions.stream(requestId, { fromSeq: second?.seq ?? 0 })) late.push(event)
    expect(textOf(late)).toBe('line 2\nline 3\n')
    const lines: string[] = []
    for await (const line of client.streamLogs(requestId)) lines.push(line)
    expect(lines).toEqual(['line 1', 'line 2', 'line 3'])

    const other = await client.submit({ command: 'sleep 300', timeoutMs: 60_000 })
    expect(await client.executions.cancel(other.requestId)).toMatchObject({ status: 'cancelled' })
    await expect(client.executions.cancel(other.requestId)).rejects.toMatchObject({ code: 'execution/not-running' })
  })
})

describe('behind a proxy that cuts connections', () => {
  sdk('an answer that was lost is fetched again, and the command ran once', async () => {
    await using proxy = await CuttingProxy.listen(gateway.port)
    let cuts = 0
    proxy.pass = (chunk) => !(chunk.includes('"exit_code"') && cuts++ === 0)
    const retries: number[] = []
    const shaky = new FaaSClient(proxy.url)
    shaky.on('retry', ({ attempt }) => void retries.push(attempt))
    const label = `once-${Date.now()}`
    const result = await shaky.execute({ command: 'cat /proc/sys/kernel/random/uuid', labels: { test: label } })
    expect([retries, cuts]).toEqual([[0], 2])
    const known = (await client.executions.list({ limit: 1000 })).executions.filter((one) => one.labels['test'] === label)
    expect(known.map((one) => one.request_id)).toEqual([result.requestId])
    expect(await client.executions.logs(result.requestId)).toBe(result.stdout)
  })

  sdk('following goes on where it was cut', async () => {
    await using proxy = await CuttingProxy.listen(gateway.port)
    const { requestId } = await client.submit({ command: 'i=0; while [ $i -lt 8 ]; do echo $i; i=$((i+1)); sleep 0.05; done' })
    let cut = false
    proxy.pass = (chunk) => {
      if (cut || !chunk.includes('"data":"3\\n"')) return true
      cut = true
      return false
    }
    const events: StreamEvent[] = []
    for await (const event of new FaaSClient(proxy.url).executions.stream(requestId)) events.push(event)
    expect([cut, textOf(events)]).toEqual([true, '0\n1\n2\n3\n4\n5\n6\n7\n'])
    expect(events.map(({ seq }) => seq)).toEqual(events.map((_, i) => i))
  })
})

describe('looking after the gateway', () => {
  sdk('prewarms: the next start is warm', async () => {
    const runtime = runtimes[0] as 'runc'
    const prewarmed = await client.prewarm('faas/base:latest', 1, { runtime })
    expect(prewarmed).toMatchObject({ ready: 1, runtime })
    // The pool knows images by digest: the stand-in of this image shares its sandboxes.
    const line = (await client.poolsDetailed()).find((pool) => pool.runtime === runtime && pool.image_digest === prewarmed.image_digest)
    expect(line?.ready).toBeGreaterThanOrEqual(1)
    expect(await client.pools()).toContain(line?.image)
    expect(await client.execute({ command: 'true', image: 'faas/base:latest', runtime })).toMatchObject({ start: 'warm', exitCode: 0 })
    expect(await client.prewarm('faas/base:latest', 0, { runtime })).toMatchObject({ wanted: 0 })
  })

  sdk('keeps an instance through commands, and lists, stops and forgets it', async () => {
    const instance = await client.instances.create({ image: 'alpine:latest', name: 'box', memoryMb: 128, envVars: { FROM: 'instance' } })
    expect(instance).toMatchObject({ name: 'box', status: 'running', memory_mb: 128 })
    await client.instances.exec(instance.id, 'echo "$FROM" > /tmp/kept')
    expect((await client.instances.exec(instance.id, ['cat', '/tmp/kept'])).stdout).toBe('instance\n')
    expect((await client.instances.list()).map(({ id }) => id)).toContain(instance.id)
    await client.instances.stop(instance.id)
    expect((await client.instances.get(instance.id)).status).toBe('stopped')
    await expect(client.instances.exec(instance.id, 'true')).rejects.toMatchObject({ code: 'instance/wrong-state' })
    await client.instances.delete(instance.id)
    await expect(client.instances.get(instance.id)).rejects.toMatchObject({ code: 'instance/not-found' })
  })

  sdk('imports, runs and removes an image', async () => {
    const store = runtimes.some((name) => name !== 'docker') ? 'oci' : 'docker'
    const reference = 'sdk-test/imported:1'
    const [imported] = await client.images.import(path.join(IMAGES_DIR, 'base'), { reference, store })
    expect(imported?.reference).toContain(reference)
    const listed = async (): Promise<boolean> => (await client.images.list()).some((image) => image.store === store && image.reference.includes(reference))
    expect(await listed()).toBe(true)
    const runtime = runtimes.find((name) => (name === 'docker') === (store === 'docker')) as 'runc'
    expect((await client.execute({ command: 'echo imported', image: reference, runtime })).stdout).toBe('imported\n')
    await client.images.remove(reference, { store })
    expect(await listed()).toBe(false)
  })

  sdk('reads health, metrics and runtimes, and counts its own calls', async () => {
    const own = new FaaSClient(gateway.url)
    await own.execute({ command: 'true' })
    expect(await own.healthCheck()).toMatchObject({ status: 'healthy' })
    const metrics = await own.getMetrics()
    expect(metrics.total_requests).toBeGreaterThan(0)
    expect((await own.runtimes()).filter(({ usable }) => usable).map(({ name }) => name).sort()).toEqual([...runtimes].sort())
    expect(own.getClientMetrics()).toMatchObject({ totalRequests: 1, errors: 0 })
  })
})

describe('off loopback', () => {
  sdk('keys are demanded, and each opens what its scopes say', async () => {
    await using keyed = await makeDataDir('keyed')
    const faas = path.join(REPO_ROOT, 'apps/cli/dist/main.js')
    const create = async (name: string, scopes: string): Promise<string> => {
      const { stdout } = await run(process.execPath, [faas, 'keys', 'create', '--data-dir', keyed.path, '--name', name, '--scopes', scopes, '--json'])
      return (JSON.parse(stdout) as { key: string }).key
    }
    const all = await create('all', 'execute,read,instances')
    await using open = await startGateway({ dataDir: keyed.path, host: '0.0.0.0', env: { FAAS_DISABLE_PREWARM: '1', ...keyed.env } })
    const as = (apiKey?: string): FaaSClient => new FaaSClient({ baseUrl: open.url, maxRetries: 1, ...(apiKey !== undefined && { apiKey }) })

    const none: unknown = await as().execute({ command: 'true', image: null }).catch((error: unknown) => error)
    expect(none).toBeInstanceOf(FaaSAuthError)
    expect(none).toMatchObject({ status: 401, code: 'auth/missing-key' })
    await expect(as(`${all}x`).execute({ command: 'true', image: null })).rejects.toMatchObject({ status: 401, code: 'auth/invalid-key' })
    // A key that is made while the gateway runs is known to it.
    const reader = await create('reader', 'read')
    await eventually(async () => (await as(reader).executions.list()).executions.length === 0, { deadlineMs: 5_000, everyMs: 100, what: 'the new key to be known' })
    await expect(as(reader).execute({ command: 'true', image: null })).rejects.toMatchObject({ status: 403, code: 'auth/missing-scope' })
    await expect(as(all).keys.list()).rejects.toMatchObject({ status: 403, code: 'auth/missing-scope' })
    const result = await as(all).execute({ command: 'echo let in', image: null })
    // Callers with keys are not all trusted: the strongest isolation comes first.
    expect([result.stdout, result.raw['isolation']]).toEqual(['let in\n', runtimes.includes('gvisor') ? 'kernel' : 'process'])
    expect(await as().healthCheck()).toMatchObject({ status: 'healthy' })
  })
})

describe('in a browser', () => {
  it('the built SDK runs, streams, hands over and tells errors, from an origin that is allowed', async ({ skip }) => {
    skip(runtimes.length === 0, 'no runtime is usable on this host')
    const browser = await browserOrReason()
    if (typeof browser === 'string') return skip(browser)
    const result = await pages.run(browser, `
      const client = new sdk.FaaSClient(${JSON.stringify(gateway.url)})
      const { stdout, exitCode } = await client.execute({ command: 'echo from the browser; exit 4' })
      const seen = []
      for await (const event of client.executeStream({ command: 'echo one; echo two >&2' })) if (event.type !== 'state') seen.push([event.type, event.text ?? event.result.exitCode])
      const { requestId } = await client.submit({ command: 'echo later' })
      const later = (await client.executions.wait(requestId)).stdout
      const error = await client.execute({ command: 'sleep 300', timeoutMs: 1000 }).catch((thrown) => [thrown instanceof sdk.FaaSTimeoutError, thrown.code, thrown.status])
      const abort = new AbortController()
      setTimeout(() => abort.abort(), 300)
      const aborted = await client.execute({ command: 'sleep 300', signal: abort.signal }).catch((thrown) => thrown.name)
      return { stdout, exitCode, seen: seen.sort(), later, error, aborted, key: client.getCacheKey('abc'), agent: navigator.userAgent.includes('Chrome') }
    `)
    expect(result).toEqual({
      stdout: 'from the browser\n', exitCode: 4, seen: [['end', 0], ['stderr', 'two\n'], ['stdout', 'one\n']], later: 'later\n', error: [true, 'execution/deadline', 504], aborted: 'AbortError',
      key: '900150983cd24fb0d6963f7d28e17f72', agent: true,
    })
  }, 240_000)

  it('nothing of the gateway is readable from an origin that is not allowed, and nothing is run for it', async ({ skip }) => {
    skip(runtimes.length === 0, 'no runtime is usable on this host')
    const browser = await browserOrReason()
    if (typeof browser === 'string') return skip(browser)
    await using strangers = await PageServer.listen()
    const before = (await client.getMetrics()).total_requests
    const result = await strangers.run(browser, `
      const client = new sdk.FaaSClient({ baseUrl: ${JSON.stringify(gateway.url)}, maxRetries: 1 })
      const code = (promise) => promise.then(() => 'answered', (thrown) => thrown.code)
      return [await code(client.execute({ command: 'true' })), await code(client.getMetrics())]
    `)
    expect(result).toEqual(['client/connection-failed', 'client/connection-failed'])
    expect((await client.getMetrics()).total_requests).toBe(before)
  }, 240_000)
})
