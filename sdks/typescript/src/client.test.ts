import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import FaaSClientDefault, { FaaSApiError, FaaSClient, FaaSConnectionError, FaaSRateLimitError, FaaSTimeoutError, FunctionBuilder, run, Runtime, type StreamEvent } from './index.js'
import { md5Hex } from './md5.js'
import { lines, serverSentEvents } from './sse.js'
import { shellQuote, uuid } from './wire.js'

// A gateway at the network edge: real HTTP, answers written by the test. tests/e2e runs the client against the real one.
interface Seen { readonly method: string; readonly url: string; readonly headers: IncomingMessage['headers']; readonly body: Record<string, unknown> }
type Answer = (request: Seen, response: ServerResponse) => void
const servers: Server[] = []

async function gateway(...answers: Answer[]): Promise<{ url: string; seen: Seen[] }> {
  const seen: Seen[] = []
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString()
      const entry: Seen = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>) }
      seen.push(entry)
      const answer = answers[Math.min(seen.length, answers.length) - 1]
      if (answer === undefined) throw new Error('the test gave no answer')
      answer(entry, response)
    })
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, seen }
}

const json = (status: number, body: unknown, headers: Record<string, string> = {}): Answer => (_request, response) => {
  response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body))
}
const reset: Answer = (_request, response) => response.destroy()
const hello = { request_id: 'r1', exit_code: 0, stdout: 'hi\n', stderr: '', duration_ms: 12, output: 'hi\n', logs: '', error: null, runtime: 'runc', start: 'warm' }

afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

describe('execute', () => {
  it('sends the body that the original client sent', async () => {
    const { url, seen } = await gateway(json(200, hello))
    const client = new FaaSClientDefault(url)
    await client.useDocker().execute({ command: 'echo hi', envVars: { A: '1' }, workingDir: '/tmp' })
    expect(seen[0]).toMatchObject({
      method: 'POST',
      url: '/api/v1/execute',
      body: {
        command: 'echo hi', image: 'alpine:latest', runtime: 'docker', timeout_ms: 30000, env_vars: [['A', '1']], working_dir: '/tmp',
        cache_key: createHash('md5').update('echo hi:alpine:latest').digest('hex'),
      },
    })
  })

  it('maps the reply, and counts it', async () => {
    const { url } = await gateway(json(200, hello))
    const client = new FaaSClient({ baseUrl: url })
    const events: unknown[] = []
    client.on('execution', (event) => events.push(event))
    const result = await client.execute({ command: 'echo hi' })
    expect(result).toMatchObject({ requestId: 'r1', output: 'hi\n', exitCode: 0, durationMs: 12, cacheHit: false, runtimeUsed: 'runc', start: 'warm' })
    expect(events).toHaveLength(1)
    expect(client.getClientMetrics()).toMatchObject({ totalRequests: 1, cacheHits: 0, errors: 0, errorRate: 0 })
  })

  it('repeats a failed call with the same idempotency key, so the command runs once', async () => {
    const { url, seen } = await gateway(reset, json(503, { error: { code: 'admission/draining', message: 'draining' } }), json(200, hello))
    const client = new FaaSClient(url)
    const attempts: number[] = []
    client.on('retry', ({ attempt }) => attempts.push(attempt))
    await client.execute({ command: 'true' })
    expect(attempts).toEqual([0, 1])
    expect(new Set(seen.map((entry) => entry.headers['idempotency-key'])).size).toBe(1)
  })

  it('does not repeat a call that the gateway refused', async () => {
    const { url, seen } = await gateway(json(400, { error: { code: 'request/invalid', message: 'no', hint: 'do this', details: { issues: [] } }, request_id: 'q' }))
    const failure = await new FaaSClient(url).execute({ command: '' }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(FaaSApiError)
    expect(failure).toMatchObject({ code: 'request/invalid', status: 400, hint: 'do this', requestId: 'q' })
    expect(seen).toHaveLength(1)
  })

  it('turns 504 into a timeout error that still has the output', async () => {
    const { url, seen } = await gateway(json(504, { ...hello, exit_code: 124, stdout: 'partial', error: { code: 'execution/deadline', message: 'too long' } }))
    const failure = await new FaaSClient(url).execute({ command: 'sleep 9' }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(FaaSTimeoutError)
    expect((failure as FaaSTimeoutError).stdout).toBe('partial')
    expect((failure as FaaSTimeoutError).execution).toMatchObject({ requestId: 'r1', exitCode: 124, error: 'too long' })
    expect(seen).toHaveLength(1)
  })

  it('waits as long as the gateway asks when it is over a limit', async () => {
    const { url } = await gateway(json(429, { error: { code: 'admission/queue-full', message: 'full' } }, { 'retry-after': '0' }))
    const failure = await new FaaSClient({ baseUrl: url, maxRetries: 2 }).execute({ command: 'true' }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(FaaSRateLimitError)
    expect(failure).toMatchObject({ retryAfterMs: 0 })
  })

  it('ends the request when the caller aborts', async () => {
    const closed = deferred()
    const arrived = deferred()
    const { url } = await gateway((_request, response) => {
      response.on('close', closed.resolve)
      arrived.resolve()
    })
    const controller = new AbortController()
    const call = new FaaSClient(url).execute({ command: 'sleep 9', signal: controller.signal })
    const settled = expect(call).rejects.toThrow('enough')
    await arrived.promise
    controller.abort(new Error('enough'))
    await closed.promise
    await settled
  })

  it('names the address when nothing answers', async () => {
    const { url } = await gateway(json(200, hello))
    const server = servers.pop()
    await new Promise((resolve) => server?.close(resolve))
    const failure = await new FaaSClient({ baseUrl: url, maxRetries: 1 }).healthCheck().catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(FaaSConnectionError)
    expect(String(failure)).toContain(url)
  })

  it('sends the key as a bearer token on every call', async () => {
    const { url, seen } = await gateway(json(200, { status: 'healthy' }))
    await new FaaSClient({ baseUrl: url, apiKey: 'secret' }).healthCheck()
    expect(seen[0]?.headers.authorization).toBe('Bearer secret')
  })
})

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined
  const promise = new Promise<void>((done) => (resolve = done))
  return { promise, resolve }
}

describe('language helpers', () => {
  it('quotes code so that no shell touches it', async () => {
    const { url, seen } = await gateway(json(200, hello))
    const client = new FaaSClient(url)
    await client.runPython(`print('$HOME', "a\`b")`)
    await client.runJavaScript('console.log(1)', { image: 'node:22' })
    expect(seen[0]?.body).toMatchObject({ image: 'python:3.11-slim', command: `python3 -c ${shellQuote(`print('$HOME', "a\`b")`)}` })
    expect(seen[1]?.body).toMatchObject({ image: 'node:22', command: `node -e 'console.log(1)'` })
  })

  it('run returns the output and fails loudly when the code failed', async () => {
    const { url } = await gateway(json(200, hello), json(200, { ...hello, exit_code: 3, error: 'Process exited with code 3' }))
    expect(await run('print(1)', 'python', url)).toBe('hi\n')
    await expect(run('exit 3', 'bash', url)).rejects.toMatchObject({ code: 'guest/failed', details: { exit_code: 3 } })
  })

  it('FunctionBuilder has the original defaults', () => {
    expect(new FunctionBuilder('f').withEnv('A', '1').withCPU(2).build()).toEqual({ name: 'f', runtime: Runtime.Auto, envVars: { A: '1' }, memoryMb: 256, cpuCores: 2, timeoutMs: 30000 })
  })
})

describe('streams', () => {
  it('yields output as it comes and ends with the result', async () => {
    const { url } = await gateway((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('id: 0\nevent: state\ndata: {"seq":0,"state":"running"}\n\nid: 1\nevent: stdout\ndata: {"seq":1,"da')
      response.write('ta":"hi\\n"}\n\n: beat\n\n')
      response.end(`id: 2\nevent: end\ndata: ${JSON.stringify({ seq: 2, result: hello })}\n\n`)
    })
    const events: StreamEvent[] = []
    for await (const event of new FaaSClient(url).executeStream({ command: 'echo hi' })) events.push(event)
    expect(events.map((event) => event.type)).toEqual(['state', 'stdout', 'end'])
    expect(events[1]).toMatchObject({ seq: 1, text: 'hi\n' })
    expect(events[2]).toMatchObject({ result: { requestId: 'r1' } })
  })

  it('streamLogs joins lines cut across chunks and leaves out blank ones', async () => {
    const { url } = await gateway((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.write('one\n\ntw')
      response.end('o\n  \n')
    })
    const got: string[] = []
    for await (const line of new FaaSClient(url).streamLogs('r1')) got.push(line)
    expect(got).toEqual(['one', 'two'])
  })

  it('reads multi-line data, comments and CRLF as the standard says', async () => {
    const body = new Response('event: x\r\ndata: a\r\ndata: b\r\nid: 7\r\n\r\n:c\n\n').body
    const events = []
    for await (const event of serverSentEvents(body as ReadableStream<Uint8Array>)) events.push(event)
    expect(events).toEqual([{ id: '7', event: 'x', data: 'a\nb' }])
  })

  it('lines keeps a last line without an end', async () => {
    const got: string[] = []
    for await (const line of lines(new Response('a\nb').body as ReadableStream<Uint8Array>)) got.push(line)
    expect(got).toEqual(['a', 'b'])
  })
})

describe('following an execution', () => {
  it('is taken up again where the connection was cut', async () => {
    const event = (seq: number, type: string, more: object): string => `id: ${seq}\nevent: ${type}\ndata: ${JSON.stringify({ seq, ...more })}\n\n`
    const { url, seen } = await gateway(
      (_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        response.write(event(0, 'stdout', { data: 'a' }), () => response.destroy())
      },
      (_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' })
        response.end(event(1, 'stdout', { data: 'b' }) + event(2, 'end', { result: hello }))
      },
    )
    const client = new FaaSClient(url)
    const retries: unknown[] = []
    client.on('retry', (info) => retries.push(info))
    const got: StreamEvent[] = []
    for await (const part of client.executions.stream('r1')) got.push(part)
    expect(got.map((part) => part.seq)).toEqual([0, 1, 2])
    expect(seen.map((entry) => entry.url)).toEqual(['/api/v1/executions/r1/stream?from_seq=0', '/api/v1/executions/r1/stream?from_seq=1'])
    expect(retries).toHaveLength(1)
  })

  it('ends with what the record says when everything was seen before', async () => {
    const { url } = await gateway((_request, response) => response.writeHead(204).end(), json(200, { request_id: 'r1', result: hello }))
    expect(await new FaaSClient(url).executions.wait('r1')).toMatchObject({ requestId: 'r1', exitCode: 0 })
  })

  it('reads a long log page by page', async () => {
    const page = (text: string, next: number): Answer => (_request, response) => void response.writeHead(200, { 'content-type': 'text/plain', 'x-next-seq': String(next) }).end(text)
    const { url, seen } = await gateway(page('one\n', 5), page('two\n', 9), page('', 9))
    expect(await new FaaSClient(url).executions.logs('r1')).toBe('one\ntwo\n')
    expect(seen[1]?.url).toBe('/api/v1/executions/r1/logs?format=text&from_seq=5&limit=10000')
  })

  it('a streamed run that is cut is an error, never a silent end', async () => {
    const { url } = await gateway((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.end('id: 0\nevent: stdout\ndata: {"seq":0,"data":"a"}\n\n')
    })
    const drain = async (): Promise<void> => {
      for await (const part of new FaaSClient(url).executeStream({ command: 'true' })) expect(part.type).toBe('stdout')
    }
    await expect(drain()).rejects.toBeInstanceOf(FaaSConnectionError)
  })
})

describe('what is sent', () => {
  it('bytes go as base64 and limits under their own name', async () => {
    const { url, seen } = await gateway(json(200, hello))
    const input = Uint8Array.from({ length: 100_000 }, (_, index) => index % 251)
    await new FaaSClient({ baseUrl: url, cacheEnabled: false }).execute({ command: ['cat'], image: null, stdin: input, pids: 16, diskMb: 8, isolation: 'kernel', network: { mode: 'egress', allow: ['10.0.0.0/8'] } })
    expect(seen[0]?.body).toEqual({
      command: ['cat'], image: null, runtime: 'auto', timeout_ms: 30000, stdin_base64: Buffer.from(input).toString('base64'),
      limits: { pids: 16, disk_mb: 8 }, isolation: 'kernel', network: { mode: 'egress', allow: ['10.0.0.0/8'] },
    })
  })

  it('code runs in the images that the client was configured with', async () => {
    const { url, seen } = await gateway(json(200, hello))
    await new FaaSClient({ baseUrl: url, images: { python: 'my/python:1' } }).runPython('1')
    expect(seen[0]?.body['image']).toBe('my/python:1')
  })

  it('a failed execute reaches the error listeners and the figures, and needs no listener', async () => {
    const { url } = await gateway(json(400, { error: { code: 'request/invalid', message: 'no' } }))
    const client = new FaaSClient(url)
    await expect(client.execute({ command: '' })).rejects.toThrow('no')
    const heard: Error[] = []
    client.on('error', (error) => heard.push(error))
    await expect(client.execute({ command: '' })).rejects.toThrow('no')
    expect(heard).toHaveLength(1)
    expect(client.getClientMetrics()).toMatchObject({ totalRequests: 2, errors: 2, errorRate: 1 })
  })

  it('a refusal for good is not repeated although it is a 503', async () => {
    const { url, seen } = await gateway(json(503, { error: { code: 'runtime/unavailable', message: 'no gVisor here' } }))
    await expect(new FaaSClient(url).execute({ command: 'true' })).rejects.toMatchObject({ code: 'runtime/unavailable' })
    expect(seen).toHaveLength(1)
  })
})

describe('uuid', () => {
  it('is a version 4 UUID also where pages are not secure', () => {
    const { crypto } = globalThis
    const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/
    expect(uuid()).toMatch(pattern)
    vi.stubGlobal('crypto', { getRandomValues: crypto.getRandomValues.bind(crypto) })
    expect(uuid()).toMatch(pattern)
    vi.unstubAllGlobals()
  })
})

describe('md5Hex', () => {
  it.each(['', 'a', 'message digest', 'ü'.repeat(100), 'x'.repeat(55), 'x'.repeat(56), 'x'.repeat(64), 'x'.repeat(1000)])('agrees with OpenSSL for %j', (text) => {
    expect(md5Hex(text)).toBe(createHash('md5').update(text).digest('hex'))
  })
})
