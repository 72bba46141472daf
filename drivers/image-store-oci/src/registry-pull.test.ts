import { chmodSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { zstdImage } from './testing/zstd-fixture.js'
import { FaasError, type PullProgress } from '@faas-platform/core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { dockerConfigCredentials, fixedCredentials, type OciImageStore, type RegistryOptions } from './index.js'
import { descriptorOf, image, index, leftovers, makeStore, never, recordingLog, sha256, temporaryDirectory, writeLayout } from './testing/fixtures.js'
import { startHostileRegistry, type HostileRegistry } from './testing/hostile-registry.js'
import { freePort, REGISTRY_USER, startRegistry, type RealRegistry } from './testing/real-registry.js'

const EMPTY = { blobs: [], layers: [], tmp: [], temporaryState: [] }
const big = image([[{ name: 'big', data: Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251)) }]], { compress: (tar) => tar, layerType: 'application/vnd.oci.image.layer.v1.tar' })
const bigLayer = big.layers[0]?.digest ?? ''

let work: ReturnType<typeof temporaryDirectory>
let store: OciImageStore
let dir: string

function open(registry: RegistryOptions = {}): void {
  store = makeStore(dir, { registry: { backoffMs: 5, backoffMsMax: 50, idleTimeoutMs: 400, ...registry } })
}

async function reopen(registry: RegistryOptions): Promise<void> {
  await store.close()
  open(registry)
}

beforeEach(() => {
  work = temporaryDirectory()
  dir = join(work.path, 'store')
  open()
})

afterEach(async () => {
  await store.close()
  work.remove()
})

describe("from Debian's registry", () => {
  let registry: RealRegistry
  let guarded: RealRegistry
  let space: ReturnType<typeof temporaryDirectory>[]

  beforeAll(async () => {
    space = [temporaryDirectory(), temporaryDirectory()]
    registry = await startRegistry(space[0]?.path ?? '', 'open')
    guarded = await startRegistry(space[1]?.path ?? '', 'basic')
  })

  afterAll(async () => {
    await Promise.all([registry, guarded].map((one) => one.stop()))
    for (const one of space) one.remove()
  })

  test.each([
    ['OCI', image([[{ name: 'a', data: 'oci' }], [{ name: 'b', data: 'two' }]])],
    ['Docker', image([[{ name: 'a', data: 'docker' }]], { manifestType: 'application/vnd.docker.distribution.manifest.v2+json', layerType: 'application/vnd.docker.image.rootfs.diff.tar.gzip' })],
    ['zstd', zstdImage()],
  ])('an image in %s form is pulled by tag and by digest', async (name, of) => {
    const repository = `team/${name.toLowerCase()}`
    await registry.push(repository, 'v1', of)
    const progress: PullProgress[] = []
    const pulled = await store.resolve(`${registry.host}/${repository}:v1`, { pull: 'missing', signal: never, onProgress: (entry) => progress.push(entry) })
    expect(pulled).toMatchObject({ digest: of.manifestDigest, reference: `${registry.host}/${repository}:v1`, standIn: false })
    const { layerDirs } = await store.leaseRootfs(pulled.digest)
    expect(readFileSync(join(layerDirs.at(-1) ?? '', 'a'), 'utf8')).toBe({ OCI: 'oci', Docker: 'docker', zstd: 'zstd' }[name])
    expect(layerDirs).toHaveLength(of.layers.length)
    expect(new Set(progress.map(({ phase }) => phase))).toEqual(new Set(['waiting', 'downloading', 'unpacking', 'done']))
    const pinned = await store.resolve(`${registry.host}/${repository}@${of.manifestDigest}`, { pull: 'always', signal: never })
    expect(pinned.digest).toBe(of.manifestDigest)
  })

  test('an index gives the image of this platform, also when it is pinned by its own digest', async () => {
    const amd = image([[{ name: 'a', data: 'amd' }]])
    const arm = image([[{ name: 'a', data: 'arm' }]], { architecture: 'arm64' })
    await registry.push('multi', 'amd', amd)
    await registry.push('multi', 'arm', arm)
    const list = index([descriptorOf(arm, { platform: { os: 'linux', architecture: 'arm64' } }), descriptorOf(amd, { platform: { os: 'linux', architecture: 'amd64' } })])
    await registry.pushManifest('multi', 'all', list, 'application/vnd.oci.image.index.v1+json')
    expect((await store.resolve(`${registry.host}/multi:all`, { pull: 'missing', signal: never })).digest).toBe(amd.manifestDigest)
    const pinned = `${registry.host}/multi@${sha256(list)}`
    expect((await store.resolve(pinned, { pull: 'missing', signal: never })).digest).toBe(amd.manifestDigest)
    expect((await store.resolve(pinned, { pull: 'never', signal: never })).digest).toBe(amd.manifestDigest)
    const onArm = makeStore(join(work.path, 'arm'), { platform: { os: 'linux', architecture: 'arm64' } })
    expect((await onArm.resolve(`${registry.host}/multi:all`, { pull: 'missing', signal: never })).digest).toBe(arm.manifestDigest)
    await onArm.close()
  })

  test('"always" follows a tag that moved, "missing" does not', async () => {
    const [one, two] = [image([[{ name: 'v', data: '1' }]]), image([[{ name: 'v', data: '2' }]])]
    const reference = `${registry.host}/moving:latest`
    await registry.push('moving', 'latest', one)
    expect((await store.resolve(reference, { pull: 'always', signal: never })).digest).toBe(one.manifestDigest)
    await registry.push('moving', 'latest', two)
    expect((await store.resolve(reference, { pull: 'missing', signal: never })).digest).toBe(one.manifestDigest)
    expect((await store.resolve(reference, { pull: 'always', signal: never })).digest).toBe(two.manifestDigest)
  })

  test('pulling the true image replaces a stand-in of the same name', async () => {
    const [standIn, real] = [image([[{ name: 'v', data: 'stand-in' }]]), image([[{ name: 'v', data: 'real' }]])]
    const reference = `${registry.host}/alpine:latest`
    await store.importArchive(writeLayout(join(work.path, 'l'), standIn, 'whatever:1'), { reference, standIn: true, signal: never })
    await registry.push('alpine', 'latest', real)
    expect(await store.resolve(reference, { pull: 'missing', signal: never })).toMatchObject({ standIn: true, digest: standIn.manifestDigest })
    expect(await store.resolve(reference, { pull: 'always', signal: never })).toMatchObject({ standIn: false, digest: real.manifestDigest })
    expect((await store.list(never)).filter(({ standIn: still }) => still)).toEqual([])
  })

  test('an unknown tag and an unknown repository are not found', async () => {
    for (const reference of [`${registry.host}/multi:nope`, `${registry.host}/no/such/thing`]) {
      await expect(store.resolve(reference, { pull: 'missing', signal: never })).rejects.toMatchObject({ code: 'image/not-found' })
    }
    expect(leftovers(dir)).toEqual(EMPTY)
  })

  test('credentials come from the configuration or from the file of Docker, and wrong ones are refused', async () => {
    const secret = image([[{ name: 'secret', data: 's' }]])
    await guarded.push('secret', 'latest', secret)
    const reference = `${guarded.host}/secret`
    const pull = (): Promise<unknown> => store.resolve(reference, { pull: 'always', signal: never })
    await expect(pull()).rejects.toMatchObject({ code: 'image/unauthorized' })
    await reopen({ credentials: fixedCredentials({ [guarded.host]: { ...REGISTRY_USER, password: 'wrong' } }) })
    await expect(pull()).rejects.toMatchObject({ code: 'image/unauthorized' })
    expect(leftovers(dir)).toEqual(EMPTY)
    await reopen({ credentials: fixedCredentials({ [guarded.host]: REGISTRY_USER }) })
    expect(await pull()).toMatchObject({ digest: secret.manifestDigest })

    const config = join(work.path, 'config.json')
    writeFileSync(config, JSON.stringify({ auths: { [`https://${guarded.host}/v2/`]: { auth: Buffer.from('nutzer:geheim').toString('base64') } } }))
    await reopen({ credentials: dockerConfigCredentials(config) })
    expect(await pull()).toMatchObject({ digest: secret.manifestDigest })

    const helper = join(work.path, 'docker-credential-probe')
    writeFileSync(helper, `#!/bin/sh\nread server; test "$server" = ${guarded.host} && echo '{"Username":"nutzer","Secret":"geheim"}'\n`)
    chmodSync(helper, 0o755)
    const path = process.env['PATH']
    process.env['PATH'] = `${work.path}${delimiter}${path}`
    try {
      writeFileSync(config, JSON.stringify({ credHelpers: { [guarded.host]: 'probe' } }))
      await reopen({ credentials: dockerConfigCredentials(config) })
      expect(await pull()).toMatchObject({ digest: secret.manifestDigest })
    } finally {
      process.env['PATH'] = path
    }
  })
})

describe('from a registry that misbehaves', () => {
  let registry: HostileRegistry
  let other: HostileRegistry

  beforeEach(async () => {
    registry = await startHostileRegistry()
    other = await startHostileRegistry('localhost')
    registry.serve(big)
    other.serve(big)
  })

  afterEach(() => Promise.all([registry.stop(), other.stop()]))

  const pull = (signal = never): Promise<{ digest: string }> => store.resolve(`${registry.host}/app`, { pull: 'missing', signal })

  async function expectFailure(code: string): Promise<void> {
    await expect(pull()).rejects.toMatchObject({ code })
    expect(leftovers(dir)).toEqual(EMPTY)
    expect(await store.list(never)).toEqual([])
  }

  test.each<[string, HostileRegistry['misbehave'], string]>([
    ['a blob with other content of the same length', (_q, response, path) => path.includes(bigLayer) && Boolean(response.end(Buffer.alloc(big.layers[0]?.blob.length ?? 0))), 'image/digest-mismatch'],
    ['a blob that goes on for ever', (_q, response, path) => path.includes(bigLayer) && Boolean(response.end(Buffer.alloc(2_000_000))), 'image/digest-mismatch'],
    ['a blob that always ends early', (_q, response, path) => path.includes(bigLayer) && Boolean(response.end('short')), 'image/digest-mismatch'],
    ['a config with other content', (_q, response, path) => path.includes(sha256(big.config)) && Boolean(response.end(Buffer.alloc(big.config.length, 32))), 'image/digest-mismatch'],
    ['a manifest that is not what its header says', (_q, response, path) => path.includes('manifests') && Boolean(response.setHeader('docker-content-digest', `sha256:${'0'.repeat(64)}`)) && false, 'image/digest-mismatch'],
    ['a manifest of 5 MiB', (_q, response, path) => path.includes('manifests') && Boolean(response.end(Buffer.alloc(5 << 20, 32))), 'image/invalid'],
    ['a manifest of 5 MiB without saying so', (_q, response, path) => path.includes('manifests') && (response.write(Buffer.alloc(3 << 20, 32)), response.end(Buffer.alloc(2 << 20, 32)), true), 'image/invalid'],
    ['a manifest that is HTML', (_q, response, path) => path.includes('manifests') && Boolean(response.setHeader('content-type', 'text/html').end('<html>')), 'image/invalid'],
    ['a manifest of schema 1', (_q, response, path) => path.includes('manifests') && Boolean(response.setHeader('content-type', 'application/vnd.docker.distribution.manifest.v1+prettyjws').end('{"schemaVersion":1}')), 'image/invalid'],
    ['a manifest that is an index as well', (_q, response, path) => path.includes('manifests') && Boolean(response.end(JSON.stringify({ ...(JSON.parse(big.manifest.toString()) as object), manifests: [] }))), 'image/invalid'],
    ['an endless circle of redirects', (_q, response, path) => Boolean(response.writeHead(307, { location: path }).end()), 'image/pull-failed'],
    ['a redirect to nowhere', (_q, response) => Boolean(response.writeHead(302, { location: 'http://' }).end()), 'image/pull-failed'],
    ['a redirect to a file of the host', (_q, response) => Boolean(response.writeHead(302, { location: 'file:///etc/passwd' }).end()), 'image/pull-failed'],
    ['a redirect to plain http elsewhere', (_q, response) => Boolean(response.writeHead(302, { location: 'http://169.254.169.254/latest/meta-data' }).end()), 'image/pull-failed'],
    ['server errors without end', (_q, response) => Boolean(response.writeHead(503).end()), 'image/pull-failed'],
    ['a connection that breaks each time', (request) => Boolean(request.socket.destroy()), 'image/pull-failed'],
    ['silence', () => true, 'image/pull-failed'],
    ['403', (_q, response) => Boolean(response.writeHead(403).end()), 'image/unauthorized'],
    ['a challenge that makes no sense', (_q, response) => Boolean(response.writeHead(401, { 'www-authenticate': '=?,,"Bearer' }).end()), 'image/unauthorized'],
    ['a challenge without an address', (_q, response) => Boolean(response.writeHead(401, { 'www-authenticate': 'Bearer service="x"' }).end()), 'image/pull-failed'],
    ['a token that smuggles a header', (_q, response, path) => Boolean(path.startsWith('/token') ? response.end(JSON.stringify({ token: 'a\r\nx: y' })) : response.writeHead(401, { 'www-authenticate': `Bearer realm="${registry.url}/token"` }).end()), 'image/pull-failed'],
  ])('%s ends in a typed error and nothing is kept', async (_name, misbehave, code) => {
    registry.misbehave = misbehave
    await expectFailure(code)
  })

  test('a download that breaks goes on where it stopped', async () => {
    let broken = 0
    registry.misbehave = (request, response, path) => {
      if (!path.includes(bigLayer) || broken >= 3) return false
      broken++
      const blob = big.layers[0]?.blob ?? Buffer.alloc(0)
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0)
      response.writeHead(from > 0 ? 206 : 200, { 'content-length': blob.length - from, ...(from > 0 && { 'content-range': `bytes ${from}-${blob.length - 1}/${blob.length}` }) })
      response.write(blob.subarray(from, from + 70_000), () => setImmediate(() => response.destroy()))
      return true
    }
    expect((await pull()).digest).toBe(big.manifestDigest)
    const ranges = registry.requests.filter(({ path }) => path.includes(bigLayer)).map(({ range }) => range)
    expect(ranges).toHaveLength(4)
    expect(ranges.slice(1).every((range) => range !== undefined && range !== 'bytes=0-')).toBe(true)
  })

  test('a registry that can not resume is read again from the start', async () => {
    let broken = false
    registry.misbehave = (request, response, path) => {
      if (!path.includes(bigLayer)) return false
      const blob = big.layers[0]?.blob ?? Buffer.alloc(0)
      if (broken) {
        response.end(blob)
        return true
      }
      broken = true
      response.writeHead(200, { 'content-length': blob.length })
      response.write(blob.subarray(0, 50_000), () => setImmediate(() => request.socket.destroy()))
      return true
    }
    expect((await pull()).digest).toBe(big.manifestDigest)
  })

  test('429 and 503 are waited out, as long as the server asks but within bounds', async () => {
    let refused = 0
    registry.misbehave = (_request, response) => refused++ < 3 && Boolean(response.writeHead(refused === 2 ? 503 : 429, { 'retry-after': '3600' }).end())
    const startedAt = performance.now()
    expect((await pull()).digest).toBe(big.manifestDigest)
    expect(performance.now() - startedAt).toBeGreaterThan(100)
    expect(performance.now() - startedAt).toBeLessThan(5000)
  })

  test('a token is fetched with credentials, used for all requests, and renewed when refused', async () => {
    await reopen({ credentials: fixedCredentials({ [registry.host]: REGISTRY_USER }) })
    let tokens = 0
    registry.misbehave = (request, response, path) => {
      if (path.startsWith('/token')) {
        response.end(JSON.stringify({ access_token: `t${++tokens}`, expires_in: 300 }))
        return true
      }
      const isOk = request.headers.authorization === (path.includes('blobs') ? 'Bearer t2' : 'Bearer t1')
      if (!isOk) response.writeHead(401, { 'www-authenticate': `Bearer realm="${registry.url}/token",service="reg",scope="repository:app:pull"` }).end()
      return !isOk
    }
    expect((await pull()).digest).toBe(big.manifestDigest)
    expect(tokens).toBe(2)
    const asked = registry.requests.find(({ path }) => path.startsWith('/token'))
    expect(asked?.path).toBe('/token?service=reg&scope=repository%3Aapp%3Apull')
    expect(asked?.authorization).toMatch(/^Basic /)
  })

  test('an identity token is traded for an access token', async () => {
    await reopen({ credentials: fixedCredentials({ [registry.host]: { identityToken: 'refresh-me' } }) })
    let form = ''
    registry.misbehave = (request, response, path) => {
      if (path.startsWith('/token')) {
        request.setEncoding('utf8').on('data', (text: string) => (form += text)).on('end', () => response.end(JSON.stringify({ access_token: 'traded' })))
        return true
      }
      const isOk = request.headers.authorization === 'Bearer traded'
      if (!isOk) response.writeHead(401, { 'www-authenticate': `Bearer realm="${registry.url}/token",service="reg"` }).end()
      return !isOk
    }
    expect((await pull()).digest).toBe(big.manifestDigest)
    expect(Object.fromEntries(new URLSearchParams(form))).toEqual({ service: 'reg', scope: 'repository:app:pull', grant_type: 'refresh_token', client_id: 'faas-platform', refresh_token: 'refresh-me' })
  })

  test('a redirect to another host does not take the authorization along', async () => {
    await reopen({ credentials: fixedCredentials({ [registry.host]: REGISTRY_USER }) })
    registry.misbehave = (request, response, path) => {
      if (request.headers.authorization === undefined) return Boolean(response.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end())
      return path.includes('blobs') && Boolean(response.writeHead(307, { location: `${other.url}${path}` }).end())
    }
    expect((await pull()).digest).toBe(big.manifestDigest)
    expect(other.requests.length).toBeGreaterThan(0)
    expect(other.requests.every(({ authorization }) => authorization === undefined)).toBe(true)
  })

  test('a place that was redirected to can not ask for the credentials of the registry', async () => {
    await reopen({ credentials: fixedCredentials({ [registry.host]: REGISTRY_USER }) })
    registry.misbehave = (_request, response, path) => path.includes('blobs') && Boolean(response.writeHead(307, { location: `${other.url}${path}` }).end())
    other.misbehave = (_request, response) => Boolean(response.writeHead(401, { 'www-authenticate': `Basic realm="x"` }).end())
    await expectFailure('image/pull-failed')
    expect(other.requests.every(({ authorization }) => authorization === undefined)).toBe(true)
  })

  test('an abort ends a slow download at once and leaves nothing behind', async () => {
    registry.misbehave = (_request, response, path) => {
      if (!path.includes(bigLayer)) return false
      response.writeHead(200, { 'content-length': 300_000 })
      response.write(Buffer.alloc(1000))
      return true
    }
    const abort = new AbortController()
    const pulling = pull(abort.signal)
    await expect.poll(() => registry.countOf(bigLayer)).toBe(1)
    abort.abort()
    await expect(pulling).rejects.toMatchObject({ name: 'AbortError' })
    expect(leftovers(dir)).toEqual(EMPTY)
  })

  test('equal pulls share one download, and one who leaves does not stop the others', async () => {
    let release: (() => void) | undefined
    registry.misbehave = (_request, response, path) => {
      if (!path.includes(bigLayer) || release !== undefined) return false
      release = () => response.end(big.layers[0]?.blob)
      return true
    }
    const leaver = new AbortController()
    const all = [pull(leaver.signal), pull(), pull()]
    await expect.poll(() => release !== undefined).toBe(true)
    leaver.abort()
    await expect(all[0]).rejects.toMatchObject({ name: 'AbortError' })
    release?.()
    expect((await Promise.all(all.slice(1))).map(({ digest }) => digest)).toEqual([big.manifestDigest, big.manifestDigest])
    expect([registry.countOf('manifests'), registry.countOf(bigLayer)]).toEqual([1, 1])
  })

  test('at most three layers are downloaded at the same time, and a shared layer once', async () => {
    const many = image([...Array.from({ length: 8 }, (_, i) => [{ name: `l${i}`, data: String(i) }]), [{ name: 'l0', data: '0' }]])
    registry.serve(many, 'many')
    let running = 0
    let most = 0
    const layerDigests = new Set(many.layers.map(({ digest }) => digest))
    registry.misbehave = (_request, response, path) => {
      if (!layerDigests.has(path.split('/').at(-1) ?? '')) return false
      most = Math.max(most, ++running)
      setTimeout(() => {
        running--
        response.end(many.blobs.get(path.split('/').at(-1) ?? ''))
      }, 30)
      return true
    }
    const { digest } = await store.resolve(`${registry.host}/app:many`, { pull: 'missing', signal: never })
    expect(most).toBe(3)
    expect((await store.leaseRootfs(digest as never)).layerDirs).toHaveLength(9)
    expect(registry.requests.filter(({ path }) => layerDigests.has(path.split('/').at(-1) ?? ''))).toHaveLength(8)
  })

  test('mirrors are asked first; one that is broken or lacks the image is passed over with a warning', async () => {
    const log = recordingLog()
    await store.close()
    store = makeStore(dir, { log, registry: { backoffMs: 1, attemptsMax: 2, mirrors: { 'registry.invalid': [`http://127.0.0.1:${await freePort()}`, other.url, registry.url] } } })
    other.misbehave = (_request, response) => Boolean(response.writeHead(404).end())
    expect((await store.resolve('registry.invalid/app', { pull: 'missing', signal: never })).digest).toBe(big.manifestDigest)
    expect(log.lines.filter((line) => line.includes('mirror'))).toHaveLength(2)
  })

  test('a registry beyond loopback is never asked without TLS unless it is configured so', async () => {
    await reopen({ mirrors: { 'registry.invalid': ['http://registry.invalid'] }, attemptsMax: 1 })
    await expect(store.resolve('registry.invalid/app', { pull: 'missing', signal: never })).rejects.toSatisfy((error) => error instanceof FaasError && error.code === 'image/pull-failed')
    expect(registry.requests).toEqual([])
  })

  test('an image that announces more than the limit is refused before anything is downloaded', async () => {
    await store.close()
    store = makeStore(dir, { limits: { imageBytesMax: 1000 } })
    await expectFailure('image/too-large')
    expect(registry.countOf('blobs')).toBe(0)
  })
})
