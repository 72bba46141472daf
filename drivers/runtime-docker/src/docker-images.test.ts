import { execFile } from 'node:child_process'
import { mkdir, readFile, rm, symlink, writeFile, cp, readdir } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { isFaasError } from '@faas-platform/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DockerImages, pullProgress } from './docker-images.js'
import { EngineClient } from './engine-client.js'
import { negotiate, type EngineVersion } from './engine-version.js'
import { StandIns } from './stand-ins.js'
import { BASE_IMAGE_DIR, realEngineSocket, temporaryDir } from './testing/real-engine.js'

const run = promisify(execFile)
const NAME = `faas-docker-test/images-${process.pid}`
const signal = AbortSignal.timeout(120_000)

let client: EngineClient
let images: DockerImages
let dir: Awaited<ReturnType<typeof temporaryDir>>

beforeAll(async () => {
  dir = await temporaryDir()
  client = new EngineClient({ socketPath: await realEngineSocket() })
  let version: Promise<EngineVersion> | undefined
  images = new DockerImages({
    client,
    engine: (wanted) => (version ??= negotiate(client, wanted)),
    standIns: new StandIns(path.join(dir.path, 'stand-ins.json')),
    temporaryDir: path.join(dir.path, 'tmp'),
    archiveBytesMax: 1024 ** 3,
    credentials: () => Promise.resolve(undefined),
    checkRegistry: async () => {},
  })
})

afterAll(async () => {
  for (const image of await images.list(signal)) if (image.reference.includes(NAME)) await images.remove(image.reference, signal)
  client.close()
  await dir[Symbol.asyncDispose]()
})

async function thrown(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  )
}

describe('images of a real engine', () => {
  test('an OCI layout directory is imported under the wanted name and resolved by id', async () => {
    const [stored] = await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:layout`, signal })
    const resolved = await images.resolve(`${NAME}:layout`, { pull: 'never', signal })
    expect(resolved.digest).toBe(stored?.digest)
    expect(resolved.reference).toBe(`docker.io/${NAME}:layout`)
    expect(resolved.config.env['PATH']).toContain('/usr/bin')
    expect(resolved.config.cmd).toEqual(['/bin/sh'])
    expect(resolved.standIn).toBe(false)
    expect(resolved.sizeBytes).toBeGreaterThan(100_000)
  })

  test('a gzipped tar of an OCI layout gives the same image as the directory', async () => {
    const archive = path.join(dir.path, 'layout.tar.gz')
    await run('tar', ['-czf', archive, '-C', BASE_IMAGE_DIR, '.'])
    const [fromTar] = await images.importArchive(archive, { reference: `${NAME}:tar`, signal })
    const [fromDir] = await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:layout`, signal })
    expect(fromTar?.digest).toBe(fromDir?.digest)
    expect(await readdir(path.join(dir.path, 'tmp'))).toEqual([])
  })

  test('what the engine saves is imported again under another name', async () => {
    await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:layout`, signal })
    const saved = path.join(dir.path, 'saved.tar')
    const reply = await client.stream({ path: `/images/${encodeURIComponent(`${NAME}:layout`)}/get`, signal })
    await writeFile(saved, reply)
    const [again] = await images.importArchive(saved, { reference: `${NAME}:saved`, signal })
    expect(again?.digest).toBe((await images.resolve(`${NAME}:layout`, { pull: 'never', signal })).digest)
  })

  test('a stand-in says so until another image takes its name', async () => {
    await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:stand-in`, standIn: true, signal })
    expect((await images.resolve(`${NAME}:stand-in`, { pull: 'missing', signal })).standIn).toBe(true)
    expect((await images.list(signal)).find((image) => image.reference.endsWith(`${NAME}:stand-in`))?.standIn).toBe(true)
    await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:stand-in`, signal })
    expect((await images.resolve(`${NAME}:stand-in`, { pull: 'missing', signal })).standIn).toBe(false)
  })

  test('a root file system becomes the same image twice, with its configuration', async () => {
    const rootfs = path.join(dir.path, 'rootfs')
    await mkdir(path.join(rootfs, 'etc'), { recursive: true })
    await writeFile(path.join(rootfs, 'etc/motd'), 'hello')
    await writeFile(path.join(rootfs, 'empty'), '')
    await symlink('/etc/motd', path.join(rootfs, 'link'))
    const config = { env: { GREETING: 'a "quoted" $value\nin two lines' }, entrypoint: ['/bin/x', '-y'], cmd: ['z'], workingDir: '/etc', user: '7:8', labels: { of: 'test' } }
    const first = await images.buildFromRootfs(rootfs, { reference: `${NAME}:rootfs`, config, signal })
    const second = await images.buildFromRootfs(rootfs, { reference: `${NAME}:rootfs2`, config, signal })
    expect(second.digest).toBe(first.digest)
    expect((await images.resolve(`${NAME}:rootfs`, { pull: 'never', signal })).config).toEqual(config)
  })

  test('removal takes the name away, and a second removal says that it is not there', async () => {
    await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:gone`, signal })
    await images.remove(`${NAME}:gone`, signal)
    expect(isFaasError(await thrown(images.resolve(`${NAME}:gone`, { pull: 'never', signal })), 'image/not-found')).toBe(true)
    expect(isFaasError(await thrown(images.remove(`${NAME}:gone`, signal)), 'image/not-found')).toBe(true)
  })

  test('a name with the digest that was resolved means the same image; another name with it does not', async () => {
    const [stored] = await images.importArchive(BASE_IMAGE_DIR, { reference: `${NAME}:layout`, signal })
    expect((await images.resolve(`${NAME}@${stored?.digest ?? ''}`, { pull: 'never', signal })).digest).toBe(stored?.digest)
    expect(isFaasError(await thrown(images.resolve(`${NAME}-other@${stored?.digest ?? ''}`, { pull: 'never', signal })), 'image/not-found')).toBe(true)
  })

  test('a pull from a registry that does not answer is a retryable pull failure', async () => {
    const error = await thrown(images.resolve('127.0.0.1:9/no/such:thing', { pull: 'missing', signal }))
    expect(isFaasError(error, 'image/pull-failed')).toBe(true)
  })

  test.each(['docker.io/UPPER/case', 'UPPER/case', 'UPPER', 'a b', '', 'x:', 'name@sha256:12', `${'a'.repeat(300)}`, '../etc', 'a//b', 'x?y=1'])('the reference "%s" is refused', async (reference) => {
    expect(isFaasError(await thrown(images.resolve(reference, { pull: 'never', signal })), 'image/invalid-reference')).toBe(true)
  })

  test('a blob with changed content is refused and nothing is kept', async () => {
    const copy = path.join(dir.path, 'tampered')
    await cp(BASE_IMAGE_DIR, copy, { recursive: true })
    const blobs = path.join(copy, 'blobs/sha256')
    for (const name of await readdir(blobs)) {
      const body = await readFile(path.join(blobs, name))
      if (body[0] !== 0x1f) continue
      body[body.length - 1] = (body[body.length - 1] ?? 0) ^ 1
      await writeFile(path.join(blobs, name), body)
    }
    const error = await thrown(images.importArchive(copy, { reference: `${NAME}:tampered`, signal }))
    expect(isFaasError(error, 'image/digest-mismatch')).toBe(true)
    expect(isFaasError(await thrown(images.resolve(`${NAME}:tampered`, { pull: 'never', signal })), 'image/not-found')).toBe(true)
    await rm(copy, { recursive: true })
  })

  test('an archive whose paths lead out of it is refused', async () => {
    const archive = path.join(dir.path, 'traversal.tar')
    await writeFile(path.join(dir.path, 'evil'), 'x')
    await run('tar', ['-cf', archive, '-C', dir.path, '--transform', 's,^,../../,', '-P', 'evil'])
    expect(isFaasError(await thrown(images.importArchive(archive, { reference: `${NAME}:evil`, signal })), 'image/invalid')).toBe(true)
  })

  test('a truncated archive and a file that is no archive are refused', async () => {
    const truncated = path.join(dir.path, 'truncated.tar')
    await run('tar', ['-cf', truncated, '-C', BASE_IMAGE_DIR, '.'])
    await writeFile(truncated, (await readFile(truncated)).subarray(0, 300_000))
    const noise = path.join(dir.path, 'noise')
    await writeFile(noise, Buffer.alloc(5000, 7))
    for (const file of [truncated, noise, path.join(dir.path, 'missing')]) {
      expect(isFaasError(await thrown(images.importArchive(file, { reference: `${NAME}:bad`, signal })), 'image/invalid')).toBe(true)
    }
  })

  test('an image of another platform is refused', async () => {
    const copy = path.join(dir.path, 'other')
    await cp(BASE_IMAGE_DIR, copy, { recursive: true })
    const index = JSON.parse(await readFile(path.join(copy, 'index.json'), 'utf8')) as { manifests: { platform?: unknown }[] }
    for (const manifest of index.manifests) manifest.platform = { os: 'linux', architecture: 's390x' }
    await writeFile(path.join(copy, 'index.json'), JSON.stringify(index))
    expect(isFaasError(await thrown(images.importArchive(copy, { reference: `${NAME}:s390x`, signal })), 'image/platform-mismatch')).toBe(true)
  })
})

describe('pull progress', () => {
  test.each([
    ['Downloading', { current: 5, total: 10 }, { phase: 'downloading', currentBytes: 5, totalBytes: 10 }],
    ['Extracting', { current: 1, total: -1 }, { phase: 'unpacking', currentBytes: 1, totalBytes: null }],
    ['Pull complete', {}, { phase: 'done', currentBytes: 0, totalBytes: null }],
    ['Verifying Checksum', {}, { phase: 'verifying', currentBytes: 0, totalBytes: null }],
  ] as const)('"%s" is mapped', (status, progressDetail, expected) => {
    expect(pullProgress({ id: 'abc', status, progressDetail })).toEqual({ layer: 'abc', ...expected })
  })

  test('a line that speaks of no layer gives nothing', () => {
    expect(pullProgress({ status: 'Pulling from library/x' })).toBeUndefined()
    expect(pullProgress({ id: 'latest', status: 'Pulling from library/x' })).toBeUndefined()
  })
})
