import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, readlinkSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { ImageDigest } from '@faas-platform/core'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { LayerDir } from './layer-dir.js'
import { hostkitPath, never, sha256, temporaryDirectory } from './testing/fixtures.js'
import { tar, type TarMember } from './testing/tar-builder.js'

let work: ReturnType<typeof temporaryDirectory>
let layers: LayerDir
let canary: string

beforeEach(() => {
  work = temporaryDirectory()
  mkdirSync(join(work.path, 'layers'))
  canary = join(work.path, 'canary')
  writeFileSync(canary, 'alive')
  layers = new LayerDir(join(work.path, 'layers'), hostkitPath(), { layerBytesMax: 64 * 1024 * 1024, layerEntriesMax: 20_000 })
})

afterEach(() => work.remove())

async function* chunks(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 60_000) yield bytes.subarray(at, at + 60_000)
}

async function unpackBytes(bytes: Buffer, wrap: (tar: Buffer) => Buffer = (same) => same): Promise<string> {
  const diffId = sha256(bytes) as ImageDigest
  await layers.unpack(diffId, chunks(wrap(bytes)), { temporaryDir: join(work.path, 'tmp'), signal: never })
  return layers.path(diffId)
}

function unpack(members: readonly TarMember[]): Promise<string> {
  return unpackBytes(tar(members))
}

/** Refused with this code, and nothing is left of it, here or anywhere. */
async function expectRefused(refused: Promise<unknown>, code: string): Promise<void> {
  await expect(refused).rejects.toMatchObject({ code })
  expect(readdirSync(join(work.path, 'layers'))).toEqual([])
  expect(existsSync(join(work.path, 'tmp')) ? readdirSync(join(work.path, 'tmp')) : []).toEqual([])
  expect(readdirSync(work.path).filter((name) => !['layers', 'tmp', 'canary'].includes(name))).toEqual([])
  expect(readFileSync(canary, 'utf8')).toBe('alive')
}

function xattr(path: string, name: string): string | undefined {
  const script = 'import os,sys\ntry: print(os.getxattr(sys.argv[1], sys.argv[2], follow_symlinks=False).hex())\nexcept OSError: print("none")'
  const text = execFileSync('python3', ['-c', script, path, name], { encoding: 'utf8' }).trim()
  return text === 'none' ? undefined : text
}

describe('an honest layer', () => {
  test('keeps modes, owners, times, links, FIFOs and attributes', async () => {
    const capability = Buffer.from('0100000200040000000000000000000000000000', 'hex')
    const root = await unpack([
      { name: './', type: '5', mode: 0o750, mtime: 5 },
      { name: 'usr/bin/', type: '5', mode: 0o1777, uid: 3, gid: 4, mtime: 77 },
      { name: 'usr/bin/ping', data: 'ping', mode: 0o6755, uid: 70_000, gid: 5, pax: { mtime: '12.5', 'SCHILY.xattr.security.capability': capability, 'SCHILY.xattr.user.note': 'n' } },
      { name: 'usr/bin/hard', type: '1', link: 'usr/bin/ping' },
      { name: 'abs', type: '2', link: '/etc/shadow', uid: 9 },
      { name: 'pipe', type: '6', mode: 0o600 },
    ])
    expect([statSync(root).mode & 0o7777, statSync(root).mtimeMs]).toEqual([0o750, 5000])
    const dir = statSync(join(root, 'usr/bin'))
    expect([dir.mode & 0o7777, dir.uid, dir.gid, dir.mtimeMs]).toEqual([0o1777, 3, 4, 77_000])
    const file = statSync(join(root, 'usr/bin/ping'))
    expect([file.mode & 0o7777, file.uid, file.gid, file.mtimeMs, file.nlink]).toEqual([0o6755, 70_000, 5, 12_500, 2])
    expect(xattr(join(root, 'usr/bin/ping'), 'security.capability')).toBe(capability.toString('hex'))
    expect(xattr(join(root, 'usr/bin/ping'), 'user.note')).toBe(Buffer.from('n').toString('hex'))
    expect([readlinkSync(join(root, 'abs')), lstatSync(join(root, 'abs')).uid]).toEqual(['/etc/shadow', 9])
    expect(lstatSync(join(root, 'pipe')).isFIFO()).toBe(true)
  })

  test.each([['gzip'], ['several gzip members']])('is recognised by its bytes when compressed with %s', async (name) => {
    const bytes = tar([{ name: 'a', data: Buffer.alloc(300_000, 'a') }])
    const half = Math.floor(bytes.length / 2)
    const root = await unpackBytes(bytes, (whole) => (name === 'gzip' ? gzipSync(whole) : Buffer.concat([gzipSync(whole.subarray(0, half)), gzipSync(whole.subarray(half))])))
    expect(statSync(join(root, 'a')).size).toBe(300_000)
  })

  test('becomes whiteouts as overlayfs wants them, and overlayfs agrees', async () => {
    const lower = await unpack([{ name: 'gone', data: '1' }, { name: 'dir/old', data: '1' }, { name: 'kept/x', data: '1' }, { name: 'was-dir/in', data: '1' }])
    const upper = await unpack([
      { name: '.wh.gone' }, { name: 'dir/', type: '5' }, { name: 'dir/.wh..wh..opq' }, { name: 'dir/new', data: '2' },
      { name: '.wh.was-dir' }, { name: 'was-dir', data: 'now a file' }, { name: '.wh..wh.aufs' },
    ])
    expect(lstatSync(join(upper, 'gone')).isCharacterDevice()).toBe(true)
    expect(xattr(join(upper, 'dir'), 'trusted.overlay.opaque')).toBe('79')
    const mount = join(work.path, 'tmp', 'mount')
    mkdirSync(mount, { recursive: true })
    execFileSync('mount', ['-t', 'overlay', 'overlay', '-o', `lowerdir=${upper}:${lower}`, mount])
    try {
      expect(readdirSync(mount).sort()).toEqual(['dir', 'kept', 'was-dir'])
      expect(readdirSync(join(mount, 'dir'))).toEqual(['new'])
      expect(readFileSync(join(mount, 'was-dir'), 'utf8')).toBe('now a file')
    } finally {
      execFileSync('umount', [mount])
    }
  })

  test('a whiteout hides lower layers only, whatever the order in its own layer', async () => {
    const root = await unpack([{ name: 'a', data: '1' }, { name: '.wh.a' }, { name: 'd/f', data: '1' }, { name: '.wh.d' }, { name: '.wh.e' }, { name: 'e/g', data: '1' }])
    expect(readFileSync(join(root, 'a'), 'utf8')).toBe('1')
    expect(readdirSync(join(root, 'd'))).toEqual(['f'])
    expect([xattr(join(root, 'd'), 'trusted.overlay.opaque'), xattr(join(root, 'e'), 'trusted.overlay.opaque')]).toEqual(['79', '79'])
  })

  test('later entries replace earlier ones, of whatever type', async () => {
    const root = await unpack([
      { name: 'x', data: 'first' }, { name: 'x', data: 'second' },
      { name: 'd/deep/f', data: '1' }, { name: 'd', data: 'file' },
      { name: 'f', data: '1' }, { name: 'f/', type: '5' }, { name: 'f/in', data: '2' },
      { name: 'l', type: '2', link: 'x' }, { name: 'l', data: 'not through the link' },
      { name: 'same', data: 's' }, { name: 'same', type: '1', link: 'same' },
    ])
    expect(['x', 'd', 'f/in', 'l', 'same'].map((name) => readFileSync(join(root, name), 'utf8'))).toEqual(['second', 'file', '2', 'not through the link', 's'])
  })

  test('long names, GNU and PAX, and every sparse form keep name and content', async () => {
    const name = `${'n'.repeat(120)}/${'m'.repeat(200)}`
    const run = (offset: number, length: number): string => `${offset.toString(8).padStart(11, '0')}\0${length.toString(8).padStart(11, '0')}\0`
    const oldTail = Buffer.alloc(167)
    oldTail.write(run(1024, 4), 386 - 345, 'latin1')
    oldTail.write(run(4096, 0), 410 - 345, 'latin1')
    oldTail.write(`${(4096).toString(8).padStart(11, '0')}\0`, 483 - 345, 'latin1')
    const map = Buffer.alloc(512)
    map.write('1\n8192\n4\n')
    const root = await unpack([
      { name, data: 'pax' },
      { name: '././@LongLink', type: 'L', data: `gnu/${'g'.repeat(150)}\0` }, { name: 'short', data: 'gnu' },
      { name: 'old', type: 'S', data: 'DATA', gnuTail: oldTail },
      { name: 'GNUSparseFile.0/new', data: Buffer.concat([map, Buffer.from('DATA')]), pax: { 'GNU.sparse.major': '1', 'GNU.sparse.minor': '0', 'GNU.sparse.name': 'new', 'GNU.sparse.realsize': '16384' } },
      { name: 'mid', data: 'DATA', pax: { 'GNU.sparse.size': '8192', 'GNU.sparse.map': '100,4,8192,0' } },
    ])
    expect(readFileSync(join(root, name), 'utf8')).toBe('pax')
    expect(readFileSync(join(root, `gnu/${'g'.repeat(150)}`), 'utf8')).toBe('gnu')
    const expected: readonly [string, number, number][] = [['old', 4096, 1024], ['new', 16_384, 8192], ['mid', 8192, 100]]
    for (const [file, size, offset] of expected) {
      const content = readFileSync(join(root, file))
      expect([content.length, content.subarray(offset, offset + 4).toString(), content.reduce((sum, byte) => sum + byte, 0)]).toEqual([size, 'DATA', 68 + 65 + 84 + 65])
    }
  })

  test("what system tar writes of this machine's own files comes out the same", async () => {
    const source = join(work.path, 'tmp', 'source')
    mkdirSync(join(source, 'sub'), { recursive: true })
    writeFileSync(join(source, 'sub/a'), 'a')
    symlinkSync('a', join(source, 'sub/l'))
    execFileSync('sh', ['-c', 'truncate -s 3M sub/hole; printf end >> sub/hole; ln sub/a sub/b; chmod 2755 sub', 'sh'], { cwd: source })
    for (const flags of [['--format=pax'], ['--format=gnu', '-S'], ['--format=pax', '-S'], ['--format=pax', '-S', '--sparse-version=0.0'], ['--format=pax', '-S', '--sparse-version=0.1'], ['--format=ustar']]) {
      const bytes = execFileSync('tar', ['-C', source, ...flags, '-c', '.'], { maxBuffer: 1 << 28 })
      const root = await unpackBytes(bytes)
      execFileSync('diff', ['-r', '--no-dereference', source, root])
      expect([statSync(join(root, 'sub')).mode & 0o7777, statSync(join(root, 'sub/a')).nlink]).toEqual([0o2755, 2])
    }
    rmSync(source, { recursive: true })
  })
})

describe('a hostile layer', () => {
  const deep = (levels: number): string => Array.from({ length: levels }, () => 'd').join('/')
  test.each<[string, readonly TarMember[]]>([
    ['a name with ..', [{ name: '../canary', data: 'dead' }]],
    ['a name with .. in the middle', [{ name: 'a/../../../canary', data: 'dead' }]],
    ['.. in a PAX path', [{ name: 'ok', data: 'dead', pax: { path: '../../canary' } }]],
    ['.. in a GNU long name', [{ name: 'L', type: 'L', data: '../../canary\0' }, { name: 'ok', data: 'dead' }]],
    ['a hard link to ..', [{ name: 'h', type: '1', link: '../../../canary' }]],
    ['a hard link to an absolute path of the host', [{ name: 'h', type: '1', link: '/etc/passwd' }]],
    ['a hard link through a symlink to the host', [{ name: 's', type: '2', link: '/etc' }, { name: 'h', type: '1', link: 's/passwd' }]],
    ['a hard link to a directory', [{ name: 'd/', type: '5' }, { name: 'h', type: '1', link: 'd' }]],
    ['a hard link to a whiteout', [{ name: '.wh.w' }, { name: 'h', type: '1', link: 'w' }]],
    ['a hard link to the root', [{ name: 'h', type: '1', link: '/' }]],
    ['a character device', [{ name: 'null', type: '3', device: [1, 3] }]],
    ['a block device', [{ name: 'sda', type: '4', device: [8, 0] }]],
    ['a whiteout written as a device', [{ name: 'w', type: '3', device: [0, 0] }]],
    ['a whiteout of ..', [{ name: 'd/.wh...' }]],
    ['a whiteout of nothing', [{ name: '.wh.' }]],
    ['an entry below a whiteout', [{ name: '.wh.d/x', data: '1' }]],
    ['a file below a file', [{ name: 'f', data: '1' }, { name: 'f/x', data: '1' }]],
    ['a file below a dangling symlink', [{ name: 's', type: '2', link: '/nowhere' }, { name: 's/x', data: '1' }]],
    ['a loop of symlinks', [{ name: 'a', type: '2', link: 'b' }, { name: 'b', type: '2', link: 'a' }, { name: 'a/x', data: '1' }]],
    ['a file without a name', [{ name: './', data: '1', type: '0' }, { name: '/', type: '2', link: 'x' }]],
    ['a component of 300 bytes', [{ name: `a/${'x'.repeat(300)}`, data: '1' }]],
    ['a path 10,000 levels deep', [{ name: `${deep(10_000)}/f`, data: '1' }]],
    ['a path made deep by symlinks', [
      { name: `${deep(400)}/`, type: '5' }, { name: 's', type: '2', link: deep(400) }, { name: `s/${deep(400)}/f`, data: '1' },
    ]],
    ['a NUL in a name', [{ name: 'ok', data: '1', pax: { path: 'a\0b' } }]],
    ['an empty symlink target', [{ name: 's', type: '2', link: '' }]],
    ['an owner beyond 32 bits', [{ name: 'f', pax: { uid: '4294967296' } }]],
    ['the owner that means "unchanged"', [{ name: 'f', pax: { uid: '4294967295' } }]],
    ['an unknown type', [{ name: 'V', type: 'V' }]],
    ['a PAX header with a wrong length', [{ name: 'p', type: 'x', data: '99 path=x\n' }, { name: 'f' }]],
    ['a PAX header of 2 MiB', [{ name: 'p', type: 'x', data: Buffer.alloc(2 << 20, 'x') }, { name: 'f' }]],
    ['a negative size', [{ name: 'f', pax: { size: '-1' } }]],
    ['a sparse map beyond its file', [{ name: 's', data: 'DATA', pax: { 'GNU.sparse.size': '10', 'GNU.sparse.map': '100,4' } }]],
    ['a sparse map that overlaps', [{ name: 's', data: 'DATADATA', pax: { 'GNU.sparse.size': '100', 'GNU.sparse.map': '10,4,12,4' } }]],
    ['a sparse map of a lie', [{ name: 's', data: 'D', pax: { 'GNU.sparse.size': '100', 'GNU.sparse.map': '0,50' } }]],
    ['a malformed capability', [{ name: 'f', pax: { 'SCHILY.xattr.security.capability': 'x' } }]],
  ])('with %s is refused and leaves nothing behind', async (_name, members) => {
    await expectRefused(unpack([{ name: 'before', data: 'x' }, ...members]), 'image/invalid')
  })

  test.each<[string, readonly TarMember[]]>([
    ['an absurd size', [{ name: 'f', size: 2 ** 50 }]],
    ['a sparse file of 4 EiB', [{ name: 's', data: '', pax: { 'GNU.sparse.size': String(2n ** 62n), 'GNU.sparse.map': '0,0' } }]],
    ['more entries than allowed', Array.from({ length: 20_001 }, () => ({ name: 'same' }))],
    ['more bytes than allowed', [{ name: 'a', data: Buffer.alloc(33 << 20) }, { name: 'b', data: Buffer.alloc(33 << 20) }]],
  ])('with %s is too large and leaves nothing behind', async (_name, members) => {
    await expectRefused(unpack(members), 'image/too-large')
  })

  test('a gzip bomb is stopped while it unpacks', async () => {
    await expectRefused(unpackBytes(tar([{ name: 'bomb', data: Buffer.alloc(200 << 20) }]), (bytes) => gzipSync(bytes)), 'image/too-large')
  })

  test('a layer cut off anywhere, or with bytes after its end, is refused', async () => {
    const whole = tar([{ name: 'f', data: 'x'.repeat(700) }, { name: 'g', data: 'y' }])
    for (const end of [1, 511, 513, 600, 1023, 1100]) await expectRefused(unpackBytes(whole.subarray(0, end)), 'image/invalid')
    const zipped = gzipSync(whole)
    for (const end of [5, 20, zipped.length - 9, zipped.length - 1]) await expectRefused(unpackBytes(whole, () => zipped.subarray(0, end)), 'image/invalid')
    await expectRefused(unpackBytes(whole, (bytes) => Buffer.concat([bytes, Buffer.from('more')])), 'image/digest-mismatch')
  })

  test('a symlinked /dev, /proc or / is only a symlink, and writing through it stays inside', async () => {
    const root = await unpack([
      { name: 'proc', type: '2', link: '/' }, { name: 'dev', type: '2', link: '../../../../../..' },
      { name: 'etc/', type: '5' }, { name: 'e', type: '2', link: '/etc' }, { name: 'e/canary', data: 'inside' },
      { name: 'up', type: '2', link: '../../../..' }, { name: 'up/canary2', data: 'inside' },
      { name: '/absolute', data: 'inside' },
    ])
    expect([readlinkSync(join(root, 'proc')), readlinkSync(join(root, 'dev'))]).toEqual(['/', '../../../../../..'])
    for (const name of ['etc/canary', 'canary2', 'absolute']) expect(readFileSync(join(root, name), 'utf8')).toBe('inside')
    expect(existsSync('/etc/canary')).toBe(false)
    expect(existsSync('/absolute')).toBe(false)
  })

  test('attributes that would steer overlayfs are left out', async () => {
    const root = await unpack([{ name: 'd/', type: '5', pax: { 'SCHILY.xattr.trusted.overlay.redirect': '/etc', 'SCHILY.xattr.trusted.overlay.opaque': 'y', 'SCHILY.xattr.user.overlay.opaque': 'y' } }])
    for (const name of ['trusted.overlay.redirect', 'trusted.overlay.opaque', 'user.overlay.opaque']) expect(xattr(join(root, 'd'), name)).toBeUndefined()
    expect(await layers.info(sha256(Buffer.alloc(0)) as ImageDigest)).toBeUndefined()
  })
})

test('whatever the entries say, nothing outside the layer changes and nothing half-made stays', async () => {
  const segment = fc.oneof({ weight: 12, arbitrary: fc.constantFrom('a', 'b', 'c', 'canary', 'etc') }, { weight: 1, arbitrary: fc.constantFrom('..', '.', '', '.wh.a', '.wh..wh..opq') })
  const path = fc.array(segment, { minLength: 1, maxLength: 4 }).map((parts) => parts.join('/'))
  const member = fc.record({
    name: path,
    type: fc.oneof({ weight: 12, arbitrary: fc.constantFrom('0', '2', '5', '6') }, { weight: 1, arbitrary: fc.constantFrom('1', '3', 'S', 'x', 'g') }),
    link: fc.oneof(path, fc.constantFrom('/etc', '/', '../../..', work.path, canary)),
    data: fc.string({ maxLength: 20 }),
    mode: fc.integer({ min: 0, max: 0o7777 }),
  })
  const outside = (): readonly unknown[] => [readdirSync(work.path).filter((name) => name !== 'tmp'), readFileSync(canary, 'utf8'), ...[canary, '/etc', '/'].map((path) => statSync(path).mtimeMs)]
  const before = outside()
  let unpacked = 0
  await fc.assert(
    fc.asyncProperty(fc.array(member, { minLength: 1, maxLength: 6 }), async (members) => {
      try {
        const root = await unpack(members)
        unpacked++
        rmSync(join(root, '..'), { recursive: true })
      } catch (error) {
        expect(error).toMatchObject({ code: 'image/invalid' })
      }
      expect(readdirSync(join(work.path, 'layers'))).toEqual([])
      expect(existsSync(join(work.path, 'tmp')) ? readdirSync(join(work.path, 'tmp')) : []).toEqual([])
      expect(outside()).toEqual(before)
    }),
    { numRuns: 250 },
  )
  expect(unpacked).toBeGreaterThan(5)
})
