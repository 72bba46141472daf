/** Requests as other people's clients and strangers send them, byte by byte. */
import { connect } from 'node:net'
import { within } from '@faas-platform/testkit'
import { describe, expect, it } from 'vitest'
import type { Rig } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'

/** Everything that the gateway answers until it closes the connection. */
function exchange(rig: Rig, request: string): Promise<string> {
  const answer = new Promise<string>((resolve, reject) => {
    const socket = connect(rig.port, '127.0.0.1')
    let text = ''
    socket.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
    socket.on('close', () => resolve(text)).on('error', reject)
    socket.write(request)
  })
  return within(5000, 'the answer', answer)
}

function head(line: string, ...headers: readonly string[]): string {
  return [`${line} HTTP/1.1`, 'host: localhost', ...headers, '', ''].join('\r\n')
}

describe('an offer of another protocol', () => {
  const offer = ['connection: Upgrade, HTTP2-Settings', 'upgrade: h2c', 'http2-settings: AAMAAABkAAQAAP__']

  it('is ignored: the request is answered, and the next on the same connection', async () => {
    await using rig = await makeRig()
    const body = JSON.stringify({ command: 'echo offered' })
    const answer = await exchange(rig,
      `${head('POST /api/v1/execute', ...offer, 'content-type: application/json', `content-length: ${body.length}`)}${body}`
      + head('GET /health', 'connection: close'))
    expect(answer.match(/HTTP\/1\.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200'])
    expect(answer).toContain('"stdout":"offered\\n"')
    expect(answer).toContain('"status":"healthy"')
  })

  it('does not bring a request past the guards', async () => {
    await using rig = await makeRig()
    const evil = head('GET /api/v1/executions', ...offer.map((line) => (line.startsWith('connection') ? `${line}, close` : line))).replace('host: localhost', 'host: evil.example')
    expect(await exchange(rig, evil)).toMatch(/^HTTP\/1\.1 403 [\s\S]*request\/host-refused/)
  })
})

describe('a body that is not sent', () => {
  it('may have any content type, as aiohttp names one', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', {})
    const answer = await exchange(rig, head(`POST /api/v1/instances/${body['id']}/stop`, 'content-type: application/octet-stream', 'content-length: 0', 'connection: close'))
    expect(answer).toMatch(/^HTTP\/1\.1 204 /)
  })

  it('still needs to be JSON when it is', async () => {
    await using rig = await makeRig()
    const answer = await exchange(rig, `${head('POST /api/v1/execute', 'content-type: application/octet-stream', 'content-length: 2', 'connection: close')}{}`)
    expect(answer).toMatch(/^HTTP\/1\.1 415 [\s\S]*request\/unsupported-media-type/)
  })
})

describe('what nobody takes', () => {
  it.each([
    ['POST /nope', 'text/plain', 404],
    ['POST /nope', 'application/json', 404],
    ['PUT /health', 'application/json', 405],
    ['QUERY /health', '', 405],
    ['QUERY /nope', '', 404],
  ])('%s with a body of "%s" is %i, whatever the body holds', async (line, type, status) => {
    await using rig = await makeRig()
    const answer = await exchange(rig, `${head(line, ...(type === '' ? [] : [`content-type: ${type}`]), 'content-length: 4', 'connection: close')}{bad`)
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} [\\s\\S]*request/unknown-route`))
  })

  it('is refused, not a fault, when it climbs out of the documentation', async () => {
    await using rig = await makeRig()
    expect(await exchange(rig, head('GET /docs/static/../../../../etc/passwd', 'connection: close'))).toMatch(/^HTTP\/1\.1 4\d\d [\s\S]*"request\//)
  })
})

describe('an instance that is to live for ever', () => {
  it('is refused, and the list goes on working', async () => {
    await using rig = await makeRig()
    for (const field of ['ttl_ms', 'idle_ms']) expect((await rig.post('/api/v1/instances', { [field]: Number.MAX_SAFE_INTEGER })).status).toBe(400)
    expect((await rig.post('/api/v1/instances', { ttl_ms: 3_600_000 })).body['expires_at']).toMatch(/^\d{4}-/)
    expect((await rig.get('/api/v1/instances')).body).toHaveLength(1)
  })
})

describe('detailed metrics', () => {
  it('always tell about docker and firecracker, as the original does', async () => {
    await using rig = await makeRig()
    expect((await rig.get('/api/v1/metrics/detailed')).body.runtimes).toMatchObject({ docker: { executions: 0, available: false }, firecracker: { executions: 0, available: false } })
  })
})
