import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { ImageDigest, PullProgress } from '@faas-platform/core'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { OciImageStore } from './index.js'
import { descriptorOf, image, index, leftovers, makeStore, never, sha256, temporaryDirectory, writeLayout } from './testing/fixtures.js'
import { tar } from './testing/tar-builder.js'

let work: ReturnType<typeof temporaryDirectory>
let store: OciImageStore
let dir: string

beforeEach(() => {
  work = temporaryDirectory()
  dir = join(work.path, 'store')
  store = makeStore(dir)
})

afterEach(async () => {
  await store.close()
  work.remove()
})

const small = image([[{ name: 'bin/', type: '5', mode: 0o755 }, { name: 'bin/sh', data: '#!', mode: 0o4755, uid: 7, gid: 8, mtime: 1_000_000 }]])

function layout(name: string, of = small, ref = 'demo:1'): string {
  return writeLayout(join(work.path, name), of, ref)
}

describe('importing', () => {
  test('an OCI layout directory becomes a resolvable image with its layers unpacked', async () => {
    const progress: PullProgress[] = []
    const stored = await store.importArchive(layout('a'), { signal: never, onProgress: (entry) => progress.push(entry) })
    expect(stored).toMatchObject([{ reference: 'docker.io/library/demo:1', digest: small.manifestDigest, sizeBytes: 2, standIn: false }])
    const resolved = await store.resolve('demo:1', { pull: 'never', signal: never })
    expect(resolved).toMatchObject({ digest: small.manifestDigest, config: { env: { PATH: '/bin', EMPTY: '' }, cmd: ['/bin/sh'], entrypoint: [], workingDir: '', user: '' } })
    const { layerDirs } = await store.leaseRootfs(resolved.digest)
    expect(layerDirs).toHaveLength(1)
    const stats = statSync(join(layerDirs[0] ?? '', 'bin/sh'))
    expect([stats.mode & 0o7777, stats.uid, stats.gid, stats.mtimeMs, stats.size]).toEqual([0o4755, 7, 8, 1_000_000_000, 2])
    expect(progress.at(-1)).toMatchObject({ phase: 'done', layer: small.layers[0]?.digest })
  })

  test.each([['tar', []], ['gzip', ['-z']]])('an OCI layout as a %s archive is the same image', async (_name, flags) => {
    const archive = join(work.path, 'image.archive')
    execFileSync('tar', ['-C', layout('a'), '-c', ...flags, '-f', archive, '.'])
    expect(await store.importArchive(archive, { signal: never })).toMatchObject([{ digest: small.manifestDigest }])
  })

  test('the old docker save form, with a repeated layer as a symlink, is understood', async () => {
    const layer = small.layers[0]
    const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [layer?.diffId, layer?.diffId] } }))
    const manifest = JSON.stringify([{ Config: 'cfg.json', RepoTags: ['demo:old', 'other/demo:2'], Layers: ['aa/layer.tar', 'bb/layer.tar'] }])
    const archive = join(work.path, 'saved.tar.gz')
    writeFileSync(archive, gzipSync(tar([
      { name: 'aa/', type: '5' }, { name: 'aa/layer.tar', data: layer?.tar ?? '' },
      { name: 'bb/layer.tar', type: '2', link: '../aa/layer.tar' },
      { name: 'cfg.json', data: config }, { name: 'manifest.json', data: manifest },
    ])))
    const stored = await store.importArchive(archive, { signal: never })
    expect(stored.map(({ reference }) => reference)).toEqual(['docker.io/library/demo:old', 'docker.io/other/demo:2'])
    const again = await store.importArchive(archive, { signal: never })
    expect(again[0]?.digest).toBe(stored[0]?.digest)
    const { layerDirs } = await store.leaseRootfs(stored[0]?.digest ?? ('' as ImageDigest))
    expect(layerDirs).toHaveLength(2)
  })

  test('the new docker save form takes its names from the file beside the layout', async () => {
    const path = writeLayout(join(work.path, 'new'), small, index([descriptorOf(small, { annotations: { 'org.opencontainers.image.ref.name': '3' } })]))
    writeFileSync(join(path, 'manifest.json'), JSON.stringify([{ Config: 'x', RepoTags: ['demo:3'], Layers: [] }]))
    expect(await store.importArchive(path, { signal: never })).toMatchObject([{ reference: 'docker.io/library/demo:3' }])
  })

  test('an index is narrowed to this platform, and attestations are not images', async () => {
    const arm = image([[{ name: 'arm', data: 'arm' }]], { architecture: 'arm64' })
    const inner = index([descriptorOf(arm, { platform: { os: 'linux', architecture: 'arm64' } }), descriptorOf(small, { platform: { os: 'linux', architecture: 'amd64' } })])
    const outer = index([
      { mediaType: 'application/vnd.oci.image.index.v1+json', digest: sha256(inner), size: inner.length, annotations: { 'io.containerd.image.name': 'docker.io/library/multi:1' } },
      descriptorOf(arm, { platform: { os: 'unknown', architecture: 'unknown' } }),
    ])
    const path = writeLayout(join(work.path, 'multi'), [small, arm], outer)
    writeFileSync(join(path, 'blobs/sha256', sha256(inner).slice(7)), inner)
    expect(await store.importArchive(path, { signal: never })).toMatchObject([{ reference: 'docker.io/library/multi:1', digest: small.manifestDigest }])
    expect(leftovers(dir).blobs).not.toContain(arm.manifestDigest.slice(7))
  })

  test('an image for another processor only is refused with what it offers', async () => {
    const arm = image([[{ name: 'arm', data: 'arm' }]], { architecture: 'arm64' })
    await expect(store.importArchive(layout('arm', arm), { signal: never })).rejects.toMatchObject({ code: 'image/platform-mismatch', hint: expect.stringContaining('linux/arm64') as string })
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
  })

  test('an image without a name needs one from the caller, and a stand-in is marked until the true image comes', async () => {
    const path = writeLayout(join(work.path, 'anon'), small, index([descriptorOf(small)]))
    await expect(store.importArchive(path, { signal: never })).rejects.toMatchObject({ code: 'image/invalid-reference' })
    await store.importArchive(path, { reference: 'alpine', standIn: true, signal: never })
    await store.importArchive(path, { reference: 'mine', signal: never })
    expect(await store.resolve('alpine:latest', { pull: 'missing', signal: never })).toMatchObject({ standIn: true })
    expect(await store.resolve('mine', { pull: 'missing', signal: never })).toMatchObject({ standIn: false })
    await store.importArchive(path, { reference: 'alpine', signal: never })
    expect(await store.resolve('alpine', { pull: 'missing', signal: never })).toMatchObject({ standIn: false })
  })

  test('a layer whose content is not what the config announces leaves nothing behind', async () => {
    const forged = image([[{ name: 'f', data: 'x' }]], { diffIds: [sha256(Buffer.from('something else'))] })
    await expect(store.importArchive(layout('forged', forged), { signal: never })).rejects.toMatchObject({ code: 'image/digest-mismatch' })
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
  })

  test('a blob that was tampered with leaves nothing behind', async () => {
    const path = layout('tampered')
    const blob = join(path, 'blobs/sha256', small.layers[0]?.digest.slice(7) ?? '')
    const bytes = readFileSync(blob)
    bytes.writeUInt8(bytes.readUInt8(bytes.length - 5) ^ 1, bytes.length - 5)
    writeFileSync(blob, bytes)
    await expect(store.importArchive(path, { signal: never })).rejects.toMatchObject({ code: 'image/digest-mismatch' })
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
  })

  test.each([
    ['nothing at all', Buffer.alloc(0)],
    ['a text file', Buffer.from('hello world'.repeat(100))],
    ['a truncated gzip', gzipSync(tar([{ name: 'index.json', data: 'x'.repeat(5000) }])).subarray(0, 40)],
    ['a tar cut off in a file', tar([{ name: 'index.json', data: 'x'.repeat(5000) }]).subarray(0, 1024)],
    ['a tar without an image', tar([{ name: 'readme', data: 'x' }])],
    ['an index that is no JSON', tar([{ name: 'index.json', data: '{' }])],
    ['names that lead out', tar([{ name: '../../../../tmp/faas-evil', data: 'x' }, { name: '/index.json', data: '{}' }])],
  ])('%s is not an archive and leaves nothing behind', async (_name, bytes) => {
    const archive = join(work.path, 'bad')
    writeFileSync(archive, bytes)
    await expect(store.importArchive(archive, { signal: never })).rejects.toMatchObject({ code: 'image/invalid' })
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
    expect(existsSync('/tmp/faas-evil')).toBe(false)
  })

  test('a link out of the archive does not reach the host', async () => {
    const archive = join(work.path, 'links')
    writeFileSync(archive, tar([{ name: 'index.json', type: '2', link: '/etc/passwd' }, { name: 'manifest.json', type: '2', link: '../../../../../../etc/passwd' }]))
    await expect(store.importArchive(archive, { signal: never })).rejects.toMatchObject({ code: 'image/invalid', message: expect.stringContaining('neither') as string })
  })

  test('limits on size, entries and layers are typed', async () => {
    await store.close()
    store = makeStore(dir, { limits: { layerBytesMax: 1000, layerEntriesMax: 3, archiveEntriesMax: 50 } })
    const big = image([[{ name: 'big', data: Buffer.alloc(1001) }]])
    await expect(store.importArchive(layout('big', big), { signal: never })).rejects.toMatchObject({ code: 'image/too-large' })
    const many = image([[0, 1, 2, 3].map((i) => ({ name: `f${i}` }))])
    await expect(store.importArchive(layout('many', many), { signal: never })).rejects.toMatchObject({ code: 'image/too-large' })
    const bomb = image([[{ name: 'bomb', data: Buffer.alloc(64 * 1024 * 1024) }]])
    await expect(store.importArchive(layout('bomb', bomb), { signal: never })).rejects.toMatchObject({ code: 'image/too-large' })
    const archive = join(work.path, 'entries')
    writeFileSync(archive, tar(Array.from({ length: 51 }, (_, i) => ({ name: `f${i}` }))))
    await expect(store.importArchive(archive, { signal: never })).rejects.toMatchObject({ code: 'image/too-large' })
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
  })

  test('an abort stops an import and leaves nothing behind', async () => {
    const path = layout('abort', image([[{ name: 'big', data: Buffer.alloc(32 * 1024 * 1024, 1) }]], { compress: (bytes) => bytes, layerType: 'application/vnd.oci.image.layer.v1.tar' }))
    const abort = new AbortController()
    const importing = store.importArchive(path, { signal: abort.signal, onProgress: ({ phase }) => phase === 'unpacking' && abort.abort() })
    await expect(importing).rejects.toMatchObject({ name: 'AbortError' })
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
  })
})

describe('keeping', () => {
  test('layers that two images share are stored once and outlive the removal of one', async () => {
    const shared = [{ name: 'shared', data: 'same' }]
    const one = image([shared, [{ name: 'one', data: '1' }]])
    const two = image([shared, [{ name: 'two', data: '2' }]])
    await store.importArchive(layout('one', one, 'one:1'), { signal: never })
    await store.importArchive(layout('two', two, 'two:1'), { signal: never })
    expect(leftovers(dir).layers).toHaveLength(3)
    await store.remove('one:1', never)
    expect(leftovers(dir).layers.sort()).toEqual(two.layers.map(({ diffId }) => diffId.slice(7)).sort())
    expect(leftovers(dir).blobs).toHaveLength(4)
    await store.remove('two:1', never)
    expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
    await expect(store.remove('two:1', never)).rejects.toMatchObject({ code: 'image/not-found' })
  })

  test('an image in use can lose a name but not its last, and goes when the lease ends', async () => {
    await store.importArchive(layout('a', small, 'a:1'), { signal: never })
    await store.importArchive(layout('b', small, 'b:1'), { signal: never })
    const first = await store.leaseRootfs(small.manifestDigest as ImageDigest)
    const second = await store.leaseRootfs(small.manifestDigest as ImageDigest)
    await store.remove('a:1', never)
    await first.release()
    await first.release()
    await expect(store.remove('b:1', never)).rejects.toMatchObject({ code: 'image/in-use' })
    await second.release()
    await store.remove('b:1', never)
    expect(leftovers(dir).layers).toEqual([])
    await expect(store.leaseRootfs(small.manifestDigest as ImageDigest)).rejects.toMatchObject({ code: 'image/not-found' })
  })

  test('an image whose name moved on is pruned once nobody uses it', async () => {
    const next = image([[{ name: 'next', data: 'n' }]])
    await store.importArchive(layout('a', small, 'app:1'), { signal: never })
    const lease = await store.leaseRootfs(small.manifestDigest as ImageDigest)
    await store.importArchive(layout('b', next, 'app:1'), { signal: never })
    expect(await store.prune(never)).toEqual({ images: 0, blobs: 0, layers: 0 })
    expect(existsSync(join(lease.layerDirs[0] ?? '', 'bin/sh'))).toBe(true)
    await lease.release()
    expect(await store.prune(never)).toEqual({ images: 1, blobs: 3, layers: 1 })
    expect((await store.list(never)).map(({ digest }) => digest)).toEqual([next.manifestDigest])
    expect(await store.usage()).toMatchObject({ layerBytes: 1 })
  })

  test('a second process sees what the first stored, and may not remove what the first uses', async () => {
    const other = makeStore(dir)
    try {
      await store.importArchive(layout('a'), { signal: never })
      expect(await other.resolve('demo:1', { pull: 'never', signal: never })).toMatchObject({ digest: small.manifestDigest })
      const lease = await store.leaseRootfs(small.manifestDigest as ImageDigest)
      await expect(other.remove('demo:1', never)).rejects.toMatchObject({ code: 'image/in-use' })
      await lease.release()
      await expect.poll(() => other.remove('demo:1', never).then(() => 'removed', (error: { code: string }) => error.code)).toBe('removed')
      await expect(store.resolve('demo:1', { pull: 'never', signal: never })).rejects.toMatchObject({ code: 'image/not-found' })
    } finally {
      await other.close()
    }
  })

  test('equal imports by two processes at once end in one copy', async () => {
    const big = image([[{ name: 'big', data: Buffer.alloc(8 * 1024 * 1024, 3) }]])
    const path = layout('big', big, 'big:1')
    const other = makeStore(dir)
    try {
      const all = await Promise.all([store, other, store, other].map((one) => one.importArchive(path, { signal: never })))
      expect(new Set(all.flat().map(({ digest }) => digest))).toEqual(new Set([big.manifestDigest]))
      expect(leftovers(dir)).toMatchObject({ layers: [big.layers[0]?.diffId.slice(7)], tmp: [] })
      expect(leftovers(dir).blobs).toHaveLength(3)
    } finally {
      await other.close()
    }
  })

  test('a known reference or digest is answered in well under a millisecond', async () => {
    await store.importArchive(layout('a'), { signal: never })
    const pinned = `demo@${small.manifestDigest}`
    for (const reference of ['demo:1', pinned, small.manifestDigest]) {
      const startedAt = performance.now()
      for (let i = 0; i < 500; i++) await store.resolve(reference, { pull: reference === 'demo:1' ? 'missing' : 'always', signal: never })
      expect((performance.now() - startedAt) / 500).toBeLessThan(0.5)
    }
  })

  test('an unknown image says what to do without a registry', async () => {
    await expect(store.resolve('nowhere:1', { pull: 'never', signal: never })).rejects.toMatchObject({ code: 'image/not-found', hint: expect.stringContaining('faas image import') as string })
    await expect(store.resolve(`sha256:${'0'.repeat(64)}`, { pull: 'always', signal: never })).rejects.toMatchObject({ code: 'image/not-found' })
  })

  test('a damaged index is reported, never taken for an empty store', async () => {
    await store.importArchive(layout('a'), { signal: never })
    writeFileSync(join(dir, 'state.json'), '{"format":1,"refer')
    await expect(store.resolve('demo:1', { pull: 'never', signal: never })).rejects.toMatchObject({ code: 'store/corrupt' })
  })

  test('closing ends the helper and removes the temporary directory', async () => {
    await store.importArchive(layout('a'), { signal: never })
    await store.close()
    expect(readdirSync(join(dir, 'tmp'))).toEqual([])
    await expect(store.leaseRootfs(small.manifestDigest as ImageDigest)).rejects.toMatchObject({ code: 'store/unavailable' })
  })
})

describe('building', () => {
  const config = { env: { A: '1' }, entrypoint: [], cmd: ['/bin/x'], workingDir: '/w', user: '1000', labels: { l: 'v' } }

  test('a directory becomes an image, the same one each time', async () => {
    const root = join(work.path, 'rootfs')
    mkdirSync(join(root, 'bin'), { recursive: true })
    writeFileSync(join(root, 'bin/x'), 'x', { mode: 0o755 })
    symlinkSync('/etc/passwd', join(root, 'link'))
    execFileSync('mknod', [join(root, 'null'), 'c', '1', '3'])
    const first = await store.buildFromRootfs(root, { reference: 'built:1', config, signal: never })
    const second = await store.buildFromRootfs(root, { reference: 'built:2', config, signal: never })
    expect(second.digest).toBe(first.digest)
    const resolved = await store.resolve('built:1', { pull: 'never', signal: never })
    expect(resolved.config).toEqual(config)
    const { layerDirs } = await store.leaseRootfs(resolved.digest)
    expect(readdirSync(layerDirs[0] ?? '').sort()).toEqual(['bin', 'link'])
    expect(readFileSync(join(layerDirs[0] ?? '', 'bin/x'), 'utf8')).toBe('x')
  })

  test('a missing directory is a typed error', async () => {
    await expect(store.buildFromRootfs(join(work.path, 'none'), { reference: 'x', config, signal: never })).rejects.toMatchObject({ code: 'image/invalid' })
  })
})
