/** The HTTP interface of a real gateway on real runtimes, as curl and other clients see it. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { Validator } from '@seriousme/openapi-schema-validator'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DataDir, makeDataDir } from '../support/data-dir.js'
import { type GatewayProcess, startGateway } from '../support/gateway-process.js'
import { call, events, execute, type ServerSentEvent } from '../support/http.js'
import { ALL_RUNTIMES, HostRuntimes } from '../support/runtimes.js'
import { openSocket } from '../support/web-socket.js'

const BODY_BYTES_MAX = 256 * 1024
const run = promisify(execFile)

let dataDir: DataDir
let gateway: GatewayProcess
let host: HostRuntimes
let anyRuntime: string

beforeAll(async () => {
  dataDir = await makeDataDir('http')
  gateway = await startGateway({ dataDir: dataDir.path, env: { FAAS_PREWARM: '1', FAAS_MAX_BODY_BYTES: String(BODY_BYTES_MAX), ...dataDir.env } })
  host = await HostRuntimes.of(gateway)
  anyRuntime = host.usable()[0] ?? 'none'
})

afterAll(async () => {
  await gateway?.kill('SIGTERM')
  await dataDir?.[Symbol.asyncDispose]()
})

/** A test of the gateway that any runtime will do for. */
function onAny(title: string, test: () => Promise<void>): void {
  it(title, async ({ skip }) => {
    skip(anyRuntime === 'none', 'no runtime is usable on this host')
    await test()
  })
}

describe.each(ALL_RUNTIMES)('the first command on %s', (runtime) => {
  it('answers curl with the superset body', async ({ skip }) => {
    const gate = host.gate(runtime)
    skip(gate.missing, gate.reason)
    const { stdout } = await run('curl', [
      '-s', `${gateway.url}/api/v1/execute`, '-H', 'content-type: application/json', '-d', JSON.stringify({ command: 'echo hello && id -u', runtime }),
    ])
    const body = JSON.parse(stdout) as Record<string, unknown>
    expect(body).toMatchObject({
      exit_code: 0, stdout: 'hello\n0\n', stderr: '', output: 'hello\n0\n', logs: '', error: null, status: 'succeeded', outcome: 'exited', signal: null,
      runtime, isolation: runtime === 'gvisor' ? 'kernel' : 'process', stdout_bytes: 8, stderr_bytes: 0, stdout_truncated: false, error_code: null, instance_id: null,
    })
    expect(body['request_id']).toMatch(/^[\da-f-]{36}$/)
    expect(body['image_digest']).toMatch(/^sha256:[\da-f]{64}$/)
    expect(body['start']).toMatch(/^(warm|cold)$/)
    expect(body['duration_ms']).toBeGreaterThanOrEqual(1)
    expect(Object.values(body['time_budget_ms'] as Record<string, number>).every((ms) => ms >= 0)).toBe(true)
    expect((body['usage'] as { wall_ms: number }).wall_ms).toBeLessThanOrEqual(body['duration_ms'] as number)
    expect((await call(`${gateway.url}/api/v1/executions/${String(body['request_id'])}`)).body['result']).toEqual(body)
  })

  it('takes env, working directory, user, input and limits', async ({ skip }) => {
    const gate = host.gate(runtime)
    skip(gate.missing, gate.reason)
    const { status, body } = await execute(gateway.url, {
      command: 'pwd; id -u; echo "$A $B"; cat', runtime, env_vars: [['A', 'one'], ['B', 'first'], ['B', 'two $HOME']], working_dir: '/tmp', user: '1234:1234', stdin: 'input\n',
      memory_mb: 96, cpu_cores: 0.5, timeout_ms: 20_000,
    })
    expect({ status, stdout: body['stdout'] }).toEqual({ status: 200, stdout: '/tmp\n1234\none two $HOME\ninput\n' })
  })

  it('streams output while the command runs', async ({ skip }) => {
    const gate = host.gate(runtime)
    skip(gate.missing, gate.reason)
    const { body: instance } = await call(`${gateway.url}/api/v1/instances`, { body: { runtime } })
    const url = `${gateway.url}/api/v1/instances/${String(instance['id'])}`
    const seen: string[] = []
    // The command ends only because this test saw its first line.
    for await (const event of events(`${url}/exec`, { body: { command: 'echo first; until [ -e /tmp/go ]; do sleep 0.02; done; echo second', timeout_ms: 20_000 } })) {
      if (event.event === 'stdout') seen.push(String(event.data['data']))
      if (event.data['data'] === 'first\n') expect((await call(`${url}/exec`, { body: { command: 'touch /tmp/go' } })).body['exit_code']).toBe(0)
      if (event.event === 'end') seen.push(String((event.data['result'] as { exit_code: number }).exit_code))
    }
    expect(seen).toEqual(['first\n', 'second\n', '0'])
    expect((await call(url, { method: 'DELETE' })).status).toBe(204)
    expect((await call(url)).status).toBe(404)
  })
})

describe('following an execution', () => {
  const NUMBERS = 'i=0; while [ $i -lt 6 ]; do echo $i; i=$((i+1)); sleep 0.1; done'
  const submitted = async (command: string): Promise<string> => String((await execute(gateway.url, { command, runtime: anyRuntime, async: true })).body['request_id'])
  const linesOf = (list: readonly ServerSentEvent[]): string => list.filter((event) => event.event === 'stdout').map((event) => String(event.data['data'])).join('')

  onAny('resumes after the last event that was seen, without a gap and without a repetition', async () => {
    const url = `${gateway.url}/api/v1/executions/${await submitted(NUMBERS)}/stream`
    const first: ServerSentEvent[] = []
    for await (const event of events(url)) {
      first.push(event)
      if (event.data['data'] === '1\n') break
    }
    const rest: ServerSentEvent[] = []
    for await (const event of events(url, { headers: { 'last-event-id': String(first.at(-1)?.id) } })) rest.push(event)
    const all = [...first, ...rest]
    expect(all.map((event) => Number(event.id))).toEqual(all.map((_, i) => i))
    expect(linesOf(all)).toBe('0\n1\n2\n3\n4\n5\n')
    expect(all.at(-1)).toMatchObject({ event: 'end', data: { result: { exit_code: 0 } } })
    // Who has seen the end is told that nothing follows.
    expect((await call(url, { headers: { accept: 'text/event-stream', 'last-event-id': String(all.at(-1)?.id) } })).status).toBe(204)
  })

  onAny('gives the same to a WebSocket, from the start or from the middle', async () => {
    const id = await submitted(NUMBERS)
    const live = await openSocket(`${gateway.url}/api/v1/executions/${id}/stream`)
    expect(await live.closed).toBe(1000)
    const output = (messages: readonly Readonly<Record<string, unknown>>[]): string => messages.filter(({ type }) => type === 'stdout').map(({ data }) => data).join('')
    expect(output(live.messages)).toBe('0\n1\n2\n3\n4\n5\n')
    expect(live.messages.at(-1)).toMatchObject({ type: 'exit', code: 0, outcome: 'exited' })
    const three = live.messages.find((message) => message['data'] === '3\n')
    const late = await openSocket(`${gateway.url}/api/v1/executions/${id}/stream?from_seq=${String(three?.['seq'])}`)
    expect(await late.closed).toBe(1000)
    expect(output(late.messages)).toBe('3\n4\n5\n')
  })

  onAny('attaches a WebSocket to an instance, runs commands there and stops it', async () => {
    const { body: instance } = await call(`${gateway.url}/api/v1/instances`, { body: { runtime: anyRuntime } })
    const client = await openSocket(`${gateway.url}/api/v1/containers/${String(instance['id'])}/stream`)
    client.send({ type: 'exec', command: 'echo out; echo err >&2; exit 3' })
    expect(await client.until((message) => message['name'] === 'command_end')).toMatchObject({ data: { code: 3 } })
    expect(client.messages).toEqual(expect.arrayContaining([expect.objectContaining({ type: 'stdout', data: 'out\n' }), expect.objectContaining({ type: 'stderr', data: 'err\n' })]))
    client.send({ type: 'stop' })
    expect(await client.until((message) => message['type'] === 'exit')).toBeDefined()
    client.close()
  })

  onAny('keeps the log of a finished execution, in JSON pages and as text', async () => {
    const { body } = await execute(gateway.url, { command: 'echo a; echo b >&2; echo c', runtime: anyRuntime })
    const logs = `${gateway.url}/api/v1/executions/${String(body['request_id'])}/logs`
    const text = (await call(`${logs}?format=text`)).text
    expect(text.split('\n').sort()).toEqual(['', 'a', 'b', 'c'])
    const pages: unknown[] = []
    for (let from = 0, complete = false; !complete; ) {
      const { body: page } = await call(`${logs}?limit=2&from_seq=${from}`)
      pages.push(...(page['entries'] as unknown[]))
      from = page['next_seq'] as number
      complete = page['complete'] === true
    }
    expect(pages.filter((entry) => (entry as { type: string }).type === 'stdout').map((entry) => (entry as { data: string }).data).join('')).toBe('a\nc\n')
  })
})

describe('a repeated idempotency key', () => {
  onAny('runs the command once, also when both calls come at once', async () => {
    const headers = { 'idempotency-key': `same-${Date.now()}` }
    const body = { command: 'sleep 0.3; cat /proc/sys/kernel/random/uuid', runtime: anyRuntime }
    const [one, two] = await Promise.all([execute(gateway.url, body, { headers }), execute(gateway.url, body, { headers })])
    const three = await execute(gateway.url, body, { headers })
    expect([one.status, two.status, three.status]).toEqual([200, 200, 200])
    expect(new Set([one, two, three].map((reply) => `${String(reply.body['request_id'])} ${String(reply.body['stdout'])}`)).size).toBe(1)
    const other = await execute(gateway.url, { ...body, command: 'true' }, { headers })
    expect(other).toMatchObject({ status: 409, body: { error: { code: 'request/idempotency-conflict' } } })
  })

  onAny('joins asynchronous submissions, too', async () => {
    const headers = { 'idempotency-key': `async-${Date.now()}` }
    const body = { command: 'echo once', runtime: anyRuntime, async: true }
    const replies = await Promise.all(Array.from({ length: 5 }, () => execute(gateway.url, body, { headers })))
    expect(replies.map(({ status }) => status)).toEqual([202, 202, 202, 202, 202])
    expect(new Set(replies.map((reply) => reply.body['request_id'])).size).toBe(1)
  })
})

describe('refusals', () => {
  it('have one typed body, whatever the reason', async () => {
    const json = { 'content-type': 'application/json' }
    const cases: readonly (readonly [string, number, string, Parameters<typeof call>[1] & { readonly path: string }])[] = [
      ['no such path', 404, 'request/unknown-route', { path: '/api/v1/nothing' }],
      ['no such method', 405, 'request/unknown-route', { path: '/api/v1/execute', method: 'GET' }],
      ['no such execution', 404, 'execution/not-found', { path: '/api/v1/executions/nope' }],
      ['not JSON', 400, 'request/malformed-json', { path: '/api/v1/execute', method: 'POST', body: '{', headers: json }],
      ['not the schema', 400, 'request/invalid', { path: '/api/v1/execute', body: { command: 7 } }],
      ['another media type', 415, 'request/unsupported-media-type', { path: '/api/v1/execute', method: 'POST', body: 'command=true', headers: { 'content-type': 'application/x-www-form-urlencoded' } }],
      ['too large', 413, 'request/too-large', { path: '/api/v1/execute', body: { command: 'x'.repeat(BODY_BYTES_MAX) } }],
      ['no such runtime', 400, 'runtime/unknown', { path: '/api/v1/execute', body: { command: 'true', runtime: 'hyperspace' } }],
      ['a malformed image', 400, 'image/invalid-reference', { path: '/api/v1/execute', body: { command: 'true', image: 'UPPER CASE' } }],
      ['a mode that is not here', 501, 'mode/unsupported', { path: '/api/v1/execute', body: { command: 'true', mode: 'cached' } }],
      ['a feature that is not here', 501, 'runtime/unsupported', { path: '/api/v1/snapshots', body: { container_id: 'x' } }],
    ]
    for (const [what, status, code, { path, ...options }] of cases) {
      const reply = await call(`${gateway.url}${path}`, options)
      expect({ what, status: reply.status, body: reply.body }).toMatchObject({ what, status, body: { error: { code, message: expect.any(String) }, request_id: expect.any(String) } })
    }
  })

  it('name the request that they belong to', async () => {
    const reply = await call(`${gateway.url}/api/v1/nothing`, { headers: { 'x-request-id': 'my-own-id' } })
    expect([reply.headers.get('x-request-id'), reply.body['request_id']]).toEqual(['my-own-id', 'my-own-id'])
  })

  onAny('of a full queue are a 429 with the time to come back', async () => {
    await using small = await makeDataDir('full')
    await using full = await startGateway({ dataDir: small.path, env: { FAAS_MAX_CONCURRENCY: '1', FAAS_MAX_QUEUE: '1', FAAS_DISABLE_PREWARM: '1', FAAS_RUNTIMES: anyRuntime, ...small.env } })
    const hold = Array.from({ length: 2 }, () => new AbortController())
    const held = hold.map(({ signal }) => execute(full.url, { command: 'sleep 300', timeout_ms: 60_000 }, { signal }))
    for (const request of held) request.catch(() => undefined)
    const admitted = async (): Promise<Readonly<Record<string, number>>> => (await call(`${full.url}/api/v1/metrics/detailed`)).body['admission'] as Record<string, number>
    await eventually(async () => (await admitted())['queued'] === 1, { what: 'one to run and one to wait', deadlineMs: 20_000, everyMs: 50 })
    const refused = await execute(full.url, { command: 'true' })
    expect(refused).toMatchObject({ status: 429, body: { error: { code: 'admission/queue-full', details: { retryAfterMs: expect.any(Number) } } } })
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
    for (const controller of hold) controller.abort()
    await eventually(async () => (await execute(full.url, { command: 'true' })).status === 200, { what: 'the queue to be free again', deadlineMs: 20_000, everyMs: 100 })
  })
})

describe('what the gateway tells about itself', () => {
  it('serves a valid OpenAPI 3.1 document and a page', async () => {
    const { status, body } = await call(`${gateway.url}/openapi.json`)
    expect([status, body['openapi']]).toEqual([200, '3.1.0'])
    expect(await new Validator().validate(body)).toMatchObject({ valid: true })
    const docs = await call(`${gateway.url}/docs`)
    expect(docs.status).toBe(200)
    expect(docs.headers.get('content-type')).toContain('text/html')
  })

  onAny('exposes metrics that a Prometheus scrape parses and that count what was run', async () => {
    await execute(gateway.url, { command: 'true', runtime: anyRuntime })
    const { headers, text } = await call(`${gateway.url}/metrics`)
    expect(headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/)
    const samples = parseExposition(text)
    const executions = samples.filter(({ name, labels }) => name === 'faas_executions_total' && labels.includes(`runtime="${anyRuntime}"`))
    expect(executions.reduce((sum, { value }) => sum + value, 0)).toBeGreaterThan(0)
    expect(samples.some(({ name }) => name === 'faas_cold_start_seconds_bucket')).toBe(true)
  })

  onAny('is healthy, and says what each runtime is', async () => {
    const health = await call(`${gateway.url}/health`)
    expect(health).toMatchObject({ status: 200, body: { status: 'healthy' } })
    expect(Object.keys(health.body['components'] as object).sort()).toEqual([...ALL_RUNTIMES].sort())
  })
})

interface Sample {
  readonly name: string
  readonly labels: string
  readonly value: number
}

/** The text format 0.0.4: every line is empty, a comment, or a sample of a family whose TYPE was told before. */
function parseExposition(text: string): readonly Sample[] {
  const families = new Set<string>()
  const samples: Sample[] = []
  for (const line of text.split('\n')) {
    const type = /^# TYPE (\S+) (counter|gauge|histogram|summary|untyped)$/.exec(line)
    if (type?.[1] !== undefined) families.add(type[1])
    if (line === '' || line.startsWith('#')) continue
    const sample = /^([a-zA-Z_:][\w:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})? (-?[\d.]+(?:e[+-]?\d+)?|NaN|[+-]Inf)$/.exec(line)
    expect(sample, line).not.toBeNull()
    const name = sample?.[1] ?? ''
    expect(families.has(name) || families.has(name.replace(/_(bucket|sum|count)$/, '')), `a TYPE for ${name}`).toBe(true)
    samples.push({ name, labels: sample?.[2] ?? '', value: Number(sample?.[3]) })
  }
  return samples
}
