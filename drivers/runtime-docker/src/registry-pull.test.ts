/** Pulls through the real engine from a real registry on this host. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { randomBytes } from 'node:crypto'
import { mkdir, writeFile } from 'node:fs/promises'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import net from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { isFaasError, type PullProgress } from '@faas-platform/core'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DockerDriver } from './docker-driver.js'
import { EngineClient } from './engine-client.js'
import { readJsonLines } from './json-lines.js'
import { temporaryDir } from './testing/real-engine.js'
import { realDriver, type RealDriver } from './testing/real-driver.js'

const REGISTRY = fileURLToPath(new URL('../../../.tools/bin/docker-registry', import.meta.url))
const signal = AbortSignal.timeout(120_000)
let real: RealDriver
let dir: Awaited<ReturnType<typeof temporaryDir>>
let registry: ChildProcess
let reference: string

beforeAll(async () => {
  real = await realDriver()
  dir = await temporaryDir()
  const port = await freePort()
  const config = path.join(dir.path, 'registry.yml')
  await writeFile(config, JSON.stringify({ version: '0.1', log: { level: 'error' }, storage: { filesystem: { rootdirectory: path.join(dir.path, 'data') } }, http: { addr: `127.0.0.1:${port}` } }))
  registry = spawn(REGISTRY, ['serve', config], { stdio: 'ignore' })
  await eventually(() => answers(port), { what: 'the registry to answer', deadlineMs: 20_000 })
  reference = `127.0.0.1:${port}/faas/pulled:1`
  // Content that no engine has: else it would have nothing to pull.
  const rootfs = path.join(dir.path, 'rootfs')
  await mkdir(rootfs)
  await writeFile(path.join(rootfs, 'random'), randomBytes(3_000_000))
  await real.driver.images.buildFromRootfs(rootfs, { reference, config: real.image.config, signal })
  await push(reference)
  await real.driver.images.remove(reference, signal)
})

afterAll(async () => {
  if (registry.exitCode === null) {
    const gone = once(registry, 'exit')
    registry.kill('SIGKILL')
    await gone
  }
  await real[Symbol.asyncDispose]()
  await dir[Symbol.asyncDispose]()
})

async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  return port
}

async function answers(port: number): Promise<boolean> {
  return await fetch(`http://127.0.0.1:${port}/v2/`).then(
    (reply) => reply.ok,
    () => false,
  )
}

async function push(name: string): Promise<void> {
  const client = new EngineClient({ socketPath: real.options.socketPath })
  const [, tag] = /:([^:/]+)$/.exec(name) ?? []
  const reply = await client.stream({ method: 'POST', path: `/images/${name.slice(0, -(tag?.length ?? 0) - 1)}/push`, query: { tag }, headers: { 'X-Registry-Auth': Buffer.from('{}').toString('base64url') } })
  await readJsonLines(reply, { signal, idleMsMax: 30_000 }, () => undefined)
  client.close()
}

async function thrown(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  )
}

describe('an image in a registry', () => {
  test('is pulled with progress, by tag and by digest, and only when that is allowed', async () => {
    expect(isFaasError(await thrown(real.driver.images.resolve(reference, { pull: 'never', signal })), 'image/not-found')).toBe(true)
    const seen: PullProgress[] = []
    const pulled = await real.driver.images.resolve(reference, { pull: 'missing', signal, onProgress: (progress) => seen.push(progress) })
    expect(pulled.reference).toBe(reference)
    expect(pulled.standIn).toBe(false)
    expect(seen.length).toBeGreaterThan(0)
    expect(seen.at(-1)?.phase).toBe('done')
    const again = await real.driver.images.resolve(reference, { pull: 'always', signal })
    expect(again.digest).toBe(pulled.digest)
    const head = await fetch(`http://${reference.replace(/\/.*/, '')}/v2/faas/pulled/manifests/1`, { method: 'HEAD', headers: { Accept: 'application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json' } })
    const byDigest = `${reference.replace(/:1$/, '')}@${head.headers.get('docker-content-digest') ?? ''}`
    expect((await real.driver.images.resolve(byDigest, { pull: 'missing', signal })).digest).toBe(pulled.digest)
    await using sandbox = await real.driver.create(real.spec({ image: pulled }), { signal })
    expect(isFaasError(await thrown(real.driver.images.remove(reference, signal)), 'image/in-use')).toBe(true)
    await sandbox[Symbol.asyncDispose]()
    await real.driver.images.remove(reference, signal)
  })

  test('that does not exist is not found', async () => {
    expect(isFaasError(await thrown(real.driver.images.resolve(reference.replace('pulled', 'nothing'), { pull: 'missing', signal })), 'image/not-found')).toBe(true)
  })
})

describe('a registry that demands credentials', () => {
  let server: http.Server
  let port: number
  const headers: (string | undefined)[] = []

  beforeAll(async () => {
    server = http.createServer((request, response) => {
      headers.push(request.headers.authorization)
      const known = request.headers.authorization === `Basic ${Buffer.from('me:secret').toString('base64')}`
      if (known && request.url === '/v2/') response.writeHead(200).end('{}')
      else if (known) response.writeHead(404, { 'Content-Type': 'application/json' }).end('{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
      else response.writeHead(401, { 'WWW-Authenticate': 'Basic realm="test"', 'Content-Type': 'application/json' }).end('{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}')
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  })

  afterAll(() => {
    server.close()
    server.closeAllConnections()
  })

  test('refuses without them, which is said so', async () => {
    const error = await thrown(real.driver.images.resolve(`127.0.0.1:${port}/private/x:1`, { pull: 'missing', signal }))
    expect(isFaasError(error, 'image/unauthorized')).toBe(true)
  })

  test('gets the configured ones, and only those of its own name', async () => {
    const asked: string[] = []
    const driver = new DockerDriver({
      ...real.options,
      credentials: (name) => {
        asked.push(name)
        return Promise.resolve(name === `127.0.0.1:${port}` ? { username: 'me', password: 'secret' } : undefined)
      },
    })
    const error = await thrown(driver.images.resolve(`127.0.0.1:${port}/private/x:1`, { pull: 'missing', signal }))
    expect(error).toMatchObject({ code: 'image/not-found' })
    expect(asked).toEqual([`127.0.0.1:${port}`])
    expect(headers).toContain(`Basic ${Buffer.from('me:secret').toString('base64')}`)
    await driver[Symbol.asyncDispose]()
  })
})

test('a registry that never answers is left when the caller gives up', async () => {
  const silent = net.createServer(() => undefined).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const { port } = silent.address() as AddressInfo
  const abort = new AbortController()
  setTimeout(() => abort.abort(new Error('enough')), 100)
  expect(await thrown(real.driver.images.resolve(`127.0.0.1:${port}/x/y:1`, { pull: 'missing', signal: abort.signal }))).toEqual(new Error('enough'))
  silent.close()
})
