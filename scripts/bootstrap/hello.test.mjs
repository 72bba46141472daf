import { createServer } from 'node:http'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { budgetLines, servedUrl, showHello } from './hello.mjs'

const servers = []
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
  vi.restoreAllMocks()
})

function serve(reply) {
  const seen = []
  const server = createServer((request, response) => {
    const chunks = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', () => {
      seen.push({ method: request.method, url: request.url, authorization: request.headers.authorization, body: Buffer.concat(chunks).toString() })
      response.writeHead(reply.status, { 'content-type': 'application/json' })
      response.end(JSON.stringify(reply.body))
    })
  })
  servers.push(server)
  return new Promise((resolvePromise) => {
    server.listen(0, '127.0.0.1', () => resolvePromise({ url: `http://127.0.0.1:${server.address().port}`, seen }))
  })
}

function captureOutput() {
  const written = []
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(text) > 0)
  return () => written.join('')
}

describe('hello', () => {
  it('finds the gateway by what that prints, whatever it listens on', () => {
    expect(servedUrl('Serving on http://127.0.0.1:41234 (documentation: http://127.0.0.1:41234/docs)')).toBe('http://127.0.0.1:41234')
    expect(servedUrl('Serving on http://0.0.0.0:80 (…)')).toBe('http://127.0.0.1:80')
    expect(servedUrl('Serving on http://[::]:80 (…)')).toBe('http://[::1]:80')
    expect(servedUrl('{"level":30,"msg":"Server listening at http://127.0.0.1:41234"}')).toBeUndefined()
  })

  it('names the commands to try next, for the address that it serves on', async () => {
    const { url } = await serve({ status: 200, body: { stdout: '', exit_code: 0 } })
    const output = captureOutput()
    await showHello(url, { problems: [] })
    expect(output()).toContain(`export FAAS_URL=${url}`)
    expect(output()).toContain('npx faas run -- echo hello')
  })

  it('runs one command with the key it was given, and shows output, runtime and time budget', async () => {
    const body = { stdout: 'hello\n0\n', exit_code: 0, runtime: 'gvisor', time_budget_ms: { queue: 0.2, exec: 3 } }
    const { url, seen } = await serve({ status: 200, body })
    const output = captureOutput()
    await showHello(url, { apiKey: 'k', problems: ['criu is missing'] })
    expect(seen[0]).toMatchObject({ method: 'POST', url: '/api/v1/execute', authorization: 'Bearer k' })
    expect(JSON.parse(seen[0].body)).toEqual({ command: 'echo hello && id -u' })
    expect(output()).toContain('"hello\\n0\\n" exit 0 on gvisor')
    expect(output()).toMatch(/exec +3\.00 ms\n +queue +0\.20 ms/)
    expect(output()).toContain('missing   criu is missing')
    expect(output()).toContain(`curl -s ${url}/api/v1/execute`)
  })

  it('shows an error with what helps', async () => {
    const { url } = await serve({ status: 503, body: { error: { code: 'runtime/none-available', message: 'No runtime.', hint: 'runc: needs root.' } } })
    const output = captureOutput()
    await showHello(url, { problems: [] })
    expect(output()).toMatch(/HTTP 503: No runtime\.\n +runc: needs root\./)
  })

  it('lists the phases of a time budget, the longest first', () => {
    const lines = budgetLines({ queue: 0.1, exec: 12.345 })
    expect(lines.map((line) => line.trim().split(/\s+/))).toEqual([['exec', '12.35', 'ms'], ['queue', '0.10', 'ms']])
    expect(budgetLines(undefined)).toEqual([])
  })
})
