/** Tenants can not see each other, and sandboxes reach nothing that they should not. */
import { execFile } from 'node:child_process'
import { createServer, type Server } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { FaaSClient } from '@faas-platform/sdk'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DataDir, makeDataDir } from '../support/data-dir.js'
import { type GatewayProcess, REPO_ROOT, startGateway } from '../support/gateway-process.js'
import { call, execute, type Reply } from '../support/http.js'
import { ALL_RUNTIMES, HostRuntimes } from '../support/runtimes.js'
import { openSocket } from '../support/web-socket.js'

const run = promisify(execFile)

let dataDir: DataDir
let gateway: GatewayProcess
let host: HostRuntimes
let keys: { readonly alice: string; readonly aliceToo: string; readonly bob: string; readonly admin: string }

const auth = (key: string): Record<string, string> => ({ authorization: `Bearer ${key}` })
const as = (who: keyof typeof keys): FaaSClient => new FaaSClient({ baseUrl: gateway.url, apiKey: keys[who], maxRetries: 1 })

beforeAll(async () => {
  dataDir = await makeDataDir('tenants')
  const create = async (name: string, scopes: string, principal: string): Promise<string> => {
    const faas = path.join(REPO_ROOT, 'apps/cli/dist/main.js')
    const { stdout } = await run(process.execPath, [faas, 'keys', 'create', '--data-dir', dataDir.path, '--name', name, '--scopes', scopes, '--principal', principal, '--json'])
    return (JSON.parse(stdout) as { key: string }).key
  }
  keys = {
    alice: await create('alice', 'execute,read,instances,network', 'alice'),
    aliceToo: await create('alice-too', 'execute,read', 'alice'),
    bob: await create('bob', 'execute,read,instances', 'bob'),
    admin: await create('admin', 'admin,execute,read', 'root'),
  }
  gateway = await startGateway({ dataDir: dataDir.path, env: { FAAS_REQUIRE_KEYS: 'true', FAAS_DISABLE_PREWARM: '1', ...dataDir.env } })
  host = await HostRuntimes.of(gateway, auth(keys.admin))
})

afterAll(async () => {
  await gateway?.kill('SIGTERM')
  await dataDir?.[Symbol.asyncDispose]()
})

function tenants(title: string, test: () => Promise<void>): void {
  it(title, async ({ skip }) => {
    skip(host.usable().length === 0, 'no runtime is usable on this host')
    await test()
  }, 60_000)
}

describe('two tenants', () => {
  tenants('know nothing of each other\'s executions', async () => {
    const { requestId } = await as('alice').submit({ command: 'echo secret output; sleep 300', image: null, envVars: { TOKEN: 'secret value' }, timeoutMs: 60_000 })
    await eventually(async () => (await as('alice').executions.logs(requestId)) === 'secret output\n', { deadlineMs: 20_000, everyMs: 50, what: 'output' })
    const at = `${gateway.url}/api/v1/executions/${requestId}`
    const unknown = `${gateway.url}/api/v1/executions/00000000-0000-4000-8000-000000000000`
    for (const [method, tail] of [['GET', ''], ['GET', '/logs'], ['GET', '/logs?format=text'], ['GET', '/stream'], ['POST', '/cancel'], ['DELETE', '']] as const) {
      const theirs = await call(`${at}${tail}`, { method, headers: auth(keys.bob) })
      const nobodys = await call(`${unknown}${tail}`, { method, headers: auth(keys.bob) })
      // As unknown as one that never was: not even its existence is told.
      expect(withoutIds(theirs), `${method} ${tail}`).toEqual(withoutIds(nobodys))
      expect([theirs.status, theirs.text.includes('secret')]).toEqual([404, false])
    }
    expect((await call(`${gateway.url}/api/v1/logs/${requestId}/stream`, { headers: auth(keys.bob) })).status).toBe(404)
    for (const route of [`/api/v1/executions/${requestId}/stream`, `/api/v1/containers/${requestId}/stream`]) {
      const socket = await openSocket(`${gateway.url}${route}`, auth(keys.bob))
      expect(await socket.closed, route).toBe(1008)
      expect(socket.messages.map(({ type }) => type), route).toEqual(['error'])
    }
    for (const query of ['', '?all=true', '?state=running']) {
      expect((await call(`${gateway.url}/api/v1/executions${query}`, { headers: auth(keys.bob) })).text, query).not.toContain(requestId)
    }
    // Another key of the same principal, and the administrator, do see it; nobody sees its environment.
    expect((await as('aliceToo').executions.get(requestId)).status).toBe('running')
    expect((await call(`${gateway.url}/api/v1/executions?all=true`, { headers: auth(keys.admin) })).text).toContain(requestId)
    expect((await call(at, { headers: auth(keys.alice) })).text).not.toContain('secret value')
    await as('alice').executions.cancel(requestId)
  })

  tenants('can not touch each other\'s instances', async () => {
    const instance = await as('alice').instances.create({ image: 'faas/base:latest', name: 'private' })
    await as('alice').instances.exec(instance.id, 'echo private > /tmp/file')
    const at = `${gateway.url}/api/v1/instances/${instance.id}`
    const headers = auth(keys.bob)
    const replies = [
      await call(at, { headers }), await call(`${at}/exec`, { headers, body: { command: 'cat /tmp/file' } }),
      await call(`${at}/stop`, { headers, method: 'POST' }), await call(at, { headers, method: 'DELETE' }),
      await execute(gateway.url, { command: 'cat /tmp/file', mode: 'persistent', instance_id: instance.id }, { headers }),
    ]
    for (const reply of replies) expect(reply).toMatchObject({ status: 404, body: { error: { code: 'instance/not-found' } } })
    expect((await as('bob').instances.list()).map(({ id }) => id)).toEqual([])
    const socket = await openSocket(`${gateway.url}/api/v1/containers/${instance.id}/stream`, headers)
    socket.send({ type: 'exec', command: 'cat /tmp/file' })
    expect(await socket.closed).toBe(1008)
    expect(JSON.stringify(socket.messages)).not.toContain('private')
    expect((await as('alice').instances.exec(instance.id, 'cat /tmp/file')).stdout).toBe('private\n')
    await as('alice').instances.delete(instance.id)
  })

  tenants('may use the same idempotency key for different things', async () => {
    const one = await as('alice').execute({ command: 'echo of alice', image: null, idempotencyKey: 'shared' })
    const other = await as('bob').execute({ command: 'echo of bob', image: null, idempotencyKey: 'shared' })
    expect([one.stdout, other.stdout, one.requestId === other.requestId]).toEqual(['of alice\n', 'of bob\n', false])
  })

  tenants('do what their keys say and no more', async () => {
    for (const [path, body] of [['/api/v1/keys', undefined], ['/api/v1/images/import', { path: '/etc' }], ['/api/v1/images/build', { path: '/etc', reference: 'stolen:1' }]] as const) {
      const reply = await call(`${gateway.url}${path}`, { headers: auth(keys.bob), ...(body !== undefined && { body }) })
      expect({ path, status: reply.status, body: reply.body }).toMatchObject({ path, status: 403, body: { error: { code: 'auth/missing-scope' } } })
    }
    const allow = await execute(gateway.url, { command: 'true', network: { mode: 'egress', allow: ['10.0.0.0/8'] } }, { headers: auth(keys.bob) })
    expect(allow).toMatchObject({ status: 403, body: { error: { code: 'auth/missing-scope' } } })
  })
})

describe.each(ALL_RUNTIMES)('the network of a sandbox on %s', (runtime) => {
  let server: Server
  let port = 0
  const answered = new Set<string>()

  beforeAll(async () => {
    // On every address of the host: whoever reaches it is written down.
    server = createServer((request, response) => {
      answered.add(request.url ?? '')
      response.end('reached\n')
    })
    server.listen(0, '0.0.0.0')
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  })

  afterAll(() => void server?.close())

  function network(title: string, test: () => Promise<void>, feature: 'none' | 'egress'): void {
    it(title, async ({ skip }) => {
      const gate = host.gate(runtime, ({ features }) => features.network.includes(feature))
      skip(gate.missing, `${gate.reason} (network ${feature})`)
      await test()
    }, 60_000)
  }
  const inside = (body: object): Promise<Reply> => execute(gateway.url, { runtime, timeout_ms: 30_000, ...body }, { headers: auth(keys.alice) })
  const wget = (address: string, mark: string): string => `wget -q -T 2 -O - http://${address}:${port}/${mark} || echo "refused ${address}"`

  network('is loopback and nothing else when none is asked for', async () => {
    const address = hostAddress()
    const { body } = await inside({ command: `ls /sys/class/net 2>/dev/null | tr '\\n' ' '; ${wget(address, `none-${runtime}`)}; ${wget('127.0.0.1', `none-${runtime}`)}` })
    expect(body['stdout']).toMatch(new RegExp(`refused ${address}\nrefused 127.0.0.1\n$`))
    expect(String(body['stdout']).split('refused')[0]).not.toMatch(/eth|veth/)
    expect(answered).not.toContain(`/none-${runtime}`)
  }, 'none')

  network('with egress reaches neither the host, nor private ranges, nor metadata', async () => {
    const addresses = [hostAddress(), '127.0.0.1', '169.254.169.254', '10.0.0.1', '172.16.0.1', '192.168.0.1', '100.64.0.1', '0.0.0.0']
    const gatewayOf = `$(ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p')`
    const { body } = await inside({ network: 'egress', command: [...addresses, gatewayOf].map((address) => wget(address, `egress-${runtime}`)).join('; ') })
    expect({ stdout: body['stdout'], stderr: body['stderr'] }).toMatchObject({ stdout: expect.stringMatching(new RegExp(`^${addresses.map((address) => `refused ${address}\n`).join('')}refused`)) })
    expect(String(body['stdout'])).not.toContain('reached')
    expect(answered).not.toContain(`/egress-${runtime}`)
  }, 'egress')

  network('with egress reaches what is allowed by name, which proves that the refusals above are the rules', async () => {
    const address = hostAddress()
    const { body } = await inside({ network: { mode: 'egress', allow: [`${address}/32`] }, command: `${wget(address, `allowed-${runtime}`)}; ${wget('169.254.169.254', `allowed-${runtime}`)}` })
    expect({ stdout: body['stdout'], stderr: body['stderr'] }).toMatchObject({ stdout: 'reached\nrefused 169.254.169.254\n' })
    expect(answered).toContain(`/allowed-${runtime}`)
  }, 'egress')

  network('with egress does not reach another sandbox', async () => {
    const instances = await Promise.all([1, 2].map(() => as('alice').instances.create({ image: 'faas/base:latest', runtime: runtime as 'runc', network: 'egress' })))
    const [one, two] = instances.map(({ id }) => id) as [string, string]
    const ofOne = (await as('alice').instances.exec(one, `ip -4 -o addr show | awk '{print $4}' | grep -v '^127' | head -1`)).stdout.split('/')[0] ?? ''
    expect(ofOne).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
    const listening = as('alice').instances.exec(one, 'echo hello | timeout 20 nc -l -p 9000', { timeoutMs: 25_000 })
    await eventually(async () => (await as('alice').instances.exec(one, 'netstat -ltn 2>/dev/null | grep -c :9000 || grep -c :2328 /proc/net/tcp')).stdout.trim() !== '0', { deadlineMs: 15_000, everyMs: 100, what: 'the listener' })
    expect((await as('alice').instances.exec(two, `timeout 3 nc ${ofOne} 9000 < /dev/null || echo refused`)).stdout).toBe('refused\n')
    // The listener was there all the time.
    expect((await as('alice').instances.exec(one, `timeout 3 nc 127.0.0.1 9000 < /dev/null`)).stdout).toBe('hello\n')
    await listening
    for (const { id } of instances) await as('alice').instances.delete(id)
  }, 'egress')
})

/** An address of the host that is not loopback. */
function hostAddress(): string {
  const found = Object.entries(networkInterfaces()).flatMap(([name, addresses]) => (/^(lo|f[\da-f]{6}-|faas|docker|br-|veth)/.test(name) ? [] : (addresses ?? []))).find(({ family, internal }) => family === 'IPv4' && !internal)
  if (found === undefined) throw new Error('this host has no address but loopback')
  return found.address
}

function withoutIds({ status, body }: Reply): unknown {
  const error = body['error'] as { code?: unknown; message?: unknown } | undefined
  return { status, code: error?.code, message: error?.message }
}
