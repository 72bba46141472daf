import { request as httpRequest } from 'node:http'
import { connect } from 'node:net'
import { systemClock, systemIds } from '@faas-platform/core'
import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import type { Json, Rig } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'
import type { Scope } from './access/keys.js'
import { createKey } from './access/keys.js'

const RUN = { command: 'true' }

async function keyFor(rig: Rig, scopes: readonly Scope[], principal?: string): Promise<Record<string, string>> {
  const { key } = await createKey(rig.ledger, { name: 'test', scopes, ...(principal !== undefined && { principal }) }, { clock: systemClock, ids: systemIds })
  return { authorization: `Bearer ${key}` }
}

/** `fetch` sets Host by itself; this does not. */
function rawGet(rig: Rig, path: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: '127.0.0.1', port: rig.port, path, headers }, (response) => {
      response.resume()
      resolve(response.statusCode ?? 0)
    })
    request.on('error', reject)
    request.end()
  })
}

describe('a gateway on loopback', () => {
  it('demands no key, and passes over keys it does not know', async () => {
    await using rig = await makeRig()
    expect((await rig.post('/api/v1/execute', RUN)).status).toBe(200)
    expect((await rig.post('/api/v1/execute', RUN, { authorization: 'Bearer whatever' })).status).toBe(200)
  })

  it('answers no host name but its own, so that DNS rebinding gets nowhere', async () => {
    await using rig = await makeRig({ env: { FAAS_ALLOWED_HOSTS: 'box.example' } })
    expect(await rawGet(rig, '/health', { host: 'evil.example' })).toBe(403)
    for (const host of [`127.0.0.1:${rig.port}`, 'localhost', '[::1]:80', 'a.localhost', 'box.example:99']) expect(await rawGet(rig, '/health', { host }), host).toBe(200)
  })

  it('lets no page of another origin cause anything, with or without a body', async () => {
    await using rig = await makeRig()
    const origin = { origin: 'https://evil.example' }
    expect((await rig.post('/api/v1/execute', RUN, origin)).body['error'].code).toBe('request/origin-refused')
    expect((await rig.fetch('/api/v1/executions/x/cancel', { method: 'POST', headers: origin })).status).toBe(403)
    const preflight = await rig.fetch('/api/v1/execute', { method: 'OPTIONS', headers: { ...origin, 'access-control-request-method': 'POST' } })
    expect([preflight.status, preflight.headers.get('access-control-allow-origin')]).toEqual([403, null])
    expect((await rig.get('/api/v1/executions', origin)).headers.get('access-control-allow-origin')).toBeNull()
    expect(rig.driver.counts.execs).toBe(0)
  })

  it('lets no page of another origin open a WebSocket', async () => {
    await using rig = await makeRig()
    const socket = new WebSocket(`ws://127.0.0.1:${rig.port}/api/v1/containers/x/stream`, { origin: 'https://evil.example' })
    const status = await new Promise((resolve) => {
      socket.on('unexpected-response', (_request, response) => resolve(response.statusCode))
      socket.on('open', () => resolve('open'))
      socket.on('error', () => undefined)
    })
    expect(status).toBe(403)
  })

  it('serves the pages of configured origins', async () => {
    await using rig = await makeRig({ env: { FAAS_CORS_ORIGINS: 'https://app.example' } })
    const origin = { origin: 'https://app.example' }
    const preflight = await rig.fetch('/api/v1/execute', { method: 'OPTIONS', headers: { ...origin, 'access-control-request-method': 'POST' } })
    expect([preflight.status, preflight.headers.get('access-control-allow-origin')]).toEqual([204, 'https://app.example'])
    expect(preflight.headers.get('access-control-allow-headers')).toContain('idempotency-key')
    const answer = await rig.post('/api/v1/execute', RUN, origin)
    expect([answer.status, answer.headers.get('access-control-allow-origin')]).toEqual([200, 'https://app.example'])
  })

  it('takes JSON only, so that a form of a page can not reach it', async () => {
    await using rig = await makeRig()
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x']) {
      const response = await rig.fetch('/api/v1/execute', { method: 'POST', headers: { 'content-type': type }, body: JSON.stringify(RUN) })
      expect([response.status, ((await response.json()) as Json).error.code], type).toEqual([415, 'request/unsupported-media-type'])
    }
  })
})

describe('a gateway off loopback', () => {
  it('demands a key on every route but /health and the documentation', async () => {
    await using rig = await makeRig({ pretendHost: '0.0.0.0' })
    for (const path of ['/api/v1/executions', '/api/v1/metrics', '/metrics', '/api/v1/instances', '/api/v1/keys', '/api/v1/images', '/api/v1/no-such-route']) {
      expect((await rig.get(path)).body.error.code, path).toBe('auth/missing-key')
    }
    const refused = await rig.post('/api/v1/execute', RUN)
    expect([refused.status, refused.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
    for (const path of ['/health', '/openapi.json', '/docs/']) expect((await rig.fetch(path)).status, path).toBe(200)
  })

  it('takes keys as Bearer and as x-api-key, and refuses unknown ones', async () => {
    await using rig = await makeRig({ pretendHost: '0.0.0.0' })
    const bearer = await keyFor(rig, ['execute'])
    expect((await rig.post('/api/v1/execute', RUN, bearer)).status).toBe(200)
    expect((await rig.post('/api/v1/execute', RUN, { 'x-api-key': (bearer['authorization'] ?? '').slice(7) })).status).toBe(200)
    const unknown = await rig.post('/api/v1/execute', RUN, { authorization: 'Bearer faas_nope' })
    expect([unknown.status, unknown.body['error'].code]).toEqual([401, 'auth/invalid-key'])
  })

  it('holds a key to its scopes', async () => {
    await using rig = await makeRig({ pretendHost: '0.0.0.0' })
    const read = await keyFor(rig, ['read'])
    const execute = await keyFor(rig, ['execute'])
    const admin = await keyFor(rig, ['admin'])
    const refused = await rig.post('/api/v1/execute', RUN, read)
    expect([refused.status, refused.body['error'].details.scope]).toEqual([403, 'execute'])
    expect((await rig.get('/api/v1/executions', execute)).status).toBe(200)
    expect((await rig.post('/api/v1/instances', {}, execute)).status).toBe(403)
    expect((await rig.get('/api/v1/keys', execute)).status).toBe(403)
    expect((await rig.get('/api/v1/keys', admin)).status).toBe(200)
    const opened = await rig.post('/api/v1/execute', { ...RUN, network: { mode: 'egress', allow: ['10.0.0.0/8'] } }, execute)
    expect([opened.status, opened.body['error'].details.scope]).toEqual([403, 'network'])
  })

  it("keeps one principal's executions from another, and shows all to administrators", async () => {
    await using rig = await makeRig({ pretendHost: '0.0.0.0' })
    const alice = await keyFor(rig, ['execute', 'instances'], 'alice')
    const bob = await keyFor(rig, ['execute', 'instances'], 'bob')
    const admin = await keyFor(rig, ['admin'], 'root')
    const { body } = await rig.post('/api/v1/execute', RUN, alice)
    const id = body['request_id'] as string
    for (const path of [`/api/v1/executions/${id}`, `/api/v1/executions/${id}/logs`, `/api/v1/executions/${id}/stream`, `/api/v1/logs/${id}/stream`]) {
      expect((await rig.fetch(path, { headers: alice })).status, path).toBe(200)
      expect((await rig.fetch(path, { headers: bob })).status, path).toBe(404)
      expect((await rig.fetch(path, { headers: admin })).status, path).toBe(200)
    }
    expect((await rig.get('/api/v1/executions', bob)).body.executions).toEqual([])
    expect((await rig.get('/api/v1/executions?all=true', bob)).body.executions).toEqual([])
    expect((await rig.get('/api/v1/executions?all=true', admin)).body.executions).toHaveLength(1)
    const instance = await rig.post('/api/v1/instances', { name: 'a' }, alice)
    expect((await rig.get(`/api/v1/instances/${instance.body['id']}`, bob)).status).toBe(404)
    expect((await rig.post(`/api/v1/instances/${instance.body['id']}/exec`, RUN, bob)).status).toBe(404)
    expect((await rig.get('/api/v1/instances', bob)).body).toEqual([])
  })

  it('stops taking a key that was revoked or has expired', async () => {
    await using rig = await makeRig({ pretendHost: '0.0.0.0' })
    const admin = await keyFor(rig, ['admin'])
    const made = await rig.post('/api/v1/keys', { name: 'short' }, admin)
    expect(made.body['key']).toMatch(/^faas_[\w-]{43}$/)
    const headers = { 'x-api-key': made.body['key'] as string }
    expect((await rig.post('/api/v1/execute', RUN, headers)).status).toBe(200)
    expect((await rig.fetch(`/api/v1/keys/${made.body['id']}`, { method: 'DELETE', headers: admin })).status).toBe(204)
    expect((await rig.post('/api/v1/execute', RUN, headers)).status).toBe(401)
    const { key } = await createKey(rig.ledger, { name: 'old', scopes: ['execute'], expiresAtMs: systemClock.nowMs() - 1 }, { clock: systemClock, ids: systemIds })
    expect((await rig.post('/api/v1/execute', RUN, { 'x-api-key': key })).status).toBe(401)
    const { body } = await rig.get('/api/v1/keys', admin)
    expect(JSON.stringify(body)).not.toContain(made.body['key'])
    expect(body.every((entry: Record<string, unknown>) => !('hash' in entry))).toBe(true)
  })
})

describe('refusals of the protocol', () => {
  it.each([
    ['malformed JSON', '{"command":', 400, 'request/malformed-json'],
    ['bytes that are not UTF-8', Buffer.from([0x22, 0xff, 0x22]), 400, 'request/malformed-json'],
    ['no body', undefined, 400, 'request/invalid'],
    ['a body that is not an object', '[]', 400, 'request/invalid'],
    ['a missing command', '{}', 400, 'request/invalid'],
    ['a body over the limit', JSON.stringify({ command: 'x'.repeat(3 * 1024 * 1024) }), 413, 'request/too-large'],
  ])('%s', async (_name, body, status, code) => {
    await using rig = await makeRig()
    const response = await rig.fetch('/api/v1/execute', { method: 'POST', headers: { 'content-type': 'application/json' }, ...(body !== undefined && { body }) })
    const answer = (await response.json()) as Json
    expect([response.status, answer.error.code]).toEqual([status, code])
    expect(Object.keys(answer).sort()).toEqual(['error', 'request_id'])
    expect(Object.keys(answer.error).sort()).toEqual(['code', 'details', 'hint', 'message'])
    expect(answer.request_id).toBe(response.headers.get('x-request-id'))
  })

  it('an unknown path is 404, a wrong method is 405 with the right ones', async () => {
    await using rig = await makeRig()
    const missing = await rig.get('/api/v2/nothing')
    expect([missing.status, missing.body.error.code]).toEqual([404, 'request/unknown-route'])
    const wrong = await rig.fetch('/api/v1/execute')
    expect([wrong.status, wrong.headers.get('allow')]).toEqual([405, 'POST'])
    const byId = await rig.fetch('/api/v1/executions/x', { method: 'PUT' })
    expect([byId.status, byId.headers.get('allow')]).toEqual([405, 'DELETE, GET'])
  })

  it('a path that is no URL and a request that is no HTTP get the error body, too', async () => {
    await using rig = await makeRig()
    for (const [head, status] of [['GET /%zz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n', '400'], ['NONSENSE\r\n\r\n', '400'], [`GET / HTTP/1.1\r\nHost: localhost\r\nX: ${'a'.repeat(20_000)}\r\n\r\n`, '431']] as const) {
      const answer = await new Promise<string>((resolve, reject) => {
        let text = ''
        const socket = connect(rig.port, '127.0.0.1', () => socket.write(head))
        socket.on('data', (chunk) => (text += chunk.toString()))
        socket.on('close', () => resolve(text))
        socket.on('error', reject)
      })
      expect(answer.split(' ')[1], head.slice(0, 20)).toBe(status)
      expect(answer).toContain('"error":{"code":"request/invalid"')
    }
  })

  it('no log line holds a command, an environment or a key', async () => {
    const lines: string[] = []
    await using rig = await makeRig({ logTo: { write: (line) => void lines.push(line) }, pretendHost: '0.0.0.0' })
    const headers = await keyFor(rig, ['execute'])
    await rig.post('/api/v1/execute', { command: 'echo hunter-command', env_vars: { T: 'hunter-env' }, stdin: 'hunter-stdin' }, headers)
    await rig.post('/api/v1/execute', { command: 'echo hunter-command', mode: 'hunter-mode', env_vars: { T: 3 } }, headers)
    await rig.post('/api/v1/execute', { command: 'x' }, { authorization: 'Bearer hunter-key' })
    const text = lines.join('')
    expect(text).toContain('"route":"/api/v1/execute"')
    expect(text).not.toContain('hunter')
    expect(text).not.toContain((headers['authorization'] ?? '').slice(7))
  })

  it('answers carry headers that keep browsers from sniffing, framing and storing', async () => {
    await using rig = await makeRig()
    const { headers } = await rig.fetch('/health')
    expect([headers.get('x-content-type-options'), headers.get('x-frame-options'), headers.get('cache-control')]).toEqual(['nosniff', 'DENY', 'no-store'])
  })
})
