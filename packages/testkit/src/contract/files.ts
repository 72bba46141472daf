/** Contract: files in and out as tar streams, and what is retained of an ended sandbox. */
import type { Sandbox } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { collect, streamOf, text, utf8 } from '../bytes.js'
import { packTar, packTarStream, unpackTar, type TarEntry } from '../tar.js'
import { never, type Bench } from './bench.js'

export function fileTests(bench: () => Bench): void {
  const copyIn = (sandbox: Sandbox, path: string, entries: readonly TarEntry[]) => sandbox.copyIn(path, packTarStream(entries), { signal: never() })
  const copyOut = async (sandbox: Sandbox, path: string) => unpackTar(await collect(sandbox.copyOut(path, { signal: never() })))

  it('a tree goes in and comes out the same: modes, links, empty directories, long and unicode names', async () => {
    const sandbox = await bench().sandbox()
    const long = `${'d'.repeat(90)}/${'e'.repeat(90)}/${'f'.repeat(120)}`
    await copyIn(sandbox, '/tmp/tree', [
      { path: 'script', type: 'file', mode: 0o755, data: utf8('#!/bin/sh\n') },
      { path: 'private', type: 'file', mode: 0o600, data: utf8('secret') },
      { path: 'empty', type: 'dir', mode: 0o700 },
      { path: 'blank', type: 'file', mode: 0o644, data: new Uint8Array(0) },
      { path: 'link', type: 'symlink', linkTarget: 'private' },
      { path: 'dangling', type: 'symlink', linkTarget: '/no/such/place' },
      { path: 'hard', type: 'hardlink', linkTarget: 'private' },
      { path: 'ünï → 漢字 🎉', type: 'file', mode: 0o644, data: utf8('unicode') },
      { path: long, type: 'file', mode: 0o644, data: utf8('long') },
      { path: 'bytes', type: 'file', mode: 0o644, data: Uint8Array.from({ length: 1024 }, (_, i) => i & 255) },
    ])
    expect((await bench().run(sandbox, 'stat -c %a /tmp/tree/script /tmp/tree/private /tmp/tree/empty 2>/dev/null || for f in script private empty; do stat -c %a /tmp/tree/$f; done')).out).toContain('755\n')
    const out = await copyOut(sandbox, '/tmp/tree')
    const found = new Map(out.map((entry) => [entry.path.replace(/\/$/, ''), entry]))
    const at = (path: string): TarEntry | undefined => found.get(`tree/${path}`)
    expect(found.get('tree')?.type).toBe('dir')
    expect(at('script')).toMatchObject({ type: 'file', mode: 0o755 })
    expect(at('private')).toMatchObject({ mode: 0o600 })
    expect(at('empty')).toMatchObject({ type: 'dir', mode: 0o700 })
    expect(at('blank')?.data ?? new Uint8Array(0)).toHaveLength(0)
    expect(at('link')).toMatchObject({ type: 'symlink', linkTarget: 'private' })
    expect(at('dangling')).toMatchObject({ type: 'symlink', linkTarget: '/no/such/place' })
    expect(text(at('ünï → 漢字 🎉')?.data ?? new Uint8Array(0))).toBe('unicode')
    expect(text(at(long)?.data ?? new Uint8Array(0))).toBe('long')
    expect(at('bytes')?.data).toEqual(Uint8Array.from({ length: 1024 }, (_, i) => i & 255))
    const pair = [at('private'), at('hard')]
    expect(pair.some((entry) => entry?.type === 'hardlink') || pair.every((entry) => text(entry?.data ?? new Uint8Array(0)) === 'secret')).toBe(true)
    await bench().run(sandbox, 'echo more >> /tmp/tree/hard')
    expect((await bench().run(sandbox, 'cat /tmp/tree/private')).out).toBe('secretmore\n')
  })

  it('a single file comes out under its name', async () => {
    const sandbox = await bench().sandbox()
    await bench().run(sandbox, 'printf content > /tmp/one')
    const out = await copyOut(sandbox, '/tmp/one')
    expect(out.map(({ path, type }) => [path, type])).toEqual([['one', 'file']])
    expect(text(out[0]?.data ?? new Uint8Array(0))).toBe('content')
  })

  it('5,000 files go in and come out', async () => {
    const sandbox = await bench().sandbox()
    const entries = Array.from({ length: 5_000 }, (_, i): TarEntry => ({ path: `d${i % 50}/f${i}`, type: 'file', mode: 0o644, data: utf8(`file ${i}`) }))
    await copyIn(sandbox, '/tmp/many', entries)
    expect((await bench().run(sandbox, 'find /tmp/many -type f | wc -l')).out.trim()).toBe('5000')
    const out = (await copyOut(sandbox, '/tmp/many')).filter(({ type }) => type === 'file')
    expect(out).toHaveLength(5_000)
    expect(text(out.find(({ path }) => path.endsWith('/f4999'))?.data ?? new Uint8Array(0))).toBe('file 4999')
  })

  it('a large file goes in and out with the same digest', async () => {
    const sandbox = await bench().sandbox()
    const data = Uint8Array.from({ length: 8_000_000 }, (_, i) => (i * 2_654_435_761) >>> 24)
    await copyIn(sandbox, '/tmp', [{ path: 'large', type: 'file', data }])
    const [entry] = await copyOut(sandbox, '/tmp/large')
    expect(entry?.data !== undefined && Buffer.from(entry.data).equals(Buffer.from(data))).toBe(true)
  })

  const escapes: readonly [name: string, entries: readonly TarEntry[]][] = [
    ['an absolute path', [{ path: '/etc/planted', type: 'file', data: utf8('x') }]],
    ['a path through ..', [{ path: '../../etc/planted', type: 'file', data: utf8('x') }]],
    ['a file through a symbolic link that leads out', [{ path: 'out', type: 'symlink', linkTarget: '/etc' }, { path: 'out/planted', type: 'file', data: utf8('x') }]],
    ['a directory through a symbolic link that leads up', [{ path: 'up', type: 'symlink', linkTarget: '../../etc' }, { path: 'up/planted/x', type: 'dir' }]],
    ['a hard link to a file outside', [{ path: 'planted', type: 'hardlink', linkTarget: '../../etc/passwd' }]],
  ]
  it.each(escapes)('%s of an archive never leads out of the target', async (_, entries) => {
    const sandbox = await bench().sandbox()
    const refused = await copyIn(sandbox, '/tmp/target', entries).then(() => null, (error: unknown) => error)
    // An absolute name may be taken as relative to the target, as tar does; whatever else is refused.
    if (refused !== null) expect((refused as { code: string }).code).toMatch(/^sandbox\/(path-invalid|file-error)$/)
    else expect(entries[0]?.path).toBe('/etc/planted')
    expect((await bench().run(sandbox, 'test -e /etc/planted; echo $?')).out).toBe('1\n')
  })

  it('an archive that is cut off is refused', async () => {
    const sandbox = await bench().sandbox()
    const whole = packTar([{ path: 'file', type: 'file', data: new Uint8Array(5_000) }])
    await expect(sandbox.copyIn('/tmp', streamOf(whole.subarray(0, 2_000)), { signal: never() })).rejects.toMatchObject({ code: expect.stringMatching(/^(sandbox|agent)\//) as string })
    expect((await bench().run(sandbox, 'echo on')).out).toBe('on\n')
  })

  it('a missing path is a file error, a relative one an invalid path', async () => {
    const sandbox = await bench().sandbox()
    await expect(copyOut(sandbox, '/no/such/path')).rejects.toMatchObject({ code: 'sandbox/file-error' })
    await expect(copyOut(sandbox, 'relative')).rejects.toMatchObject({ code: 'sandbox/path-invalid' })
    await expect(copyIn(sandbox, 'relative', [])).rejects.toMatchObject({ code: 'sandbox/path-invalid' })
  })

  it('a copy that is stopped by its reader leaves the sandbox working', async () => {
    const sandbox = await bench().sandbox()
    await bench().run(sandbox, 'dd if=/dev/zero of=/tmp/big bs=1M count=16 2>/dev/null')
    for await (const chunk of sandbox.copyOut('/tmp/big', { signal: never() })) {
      expect(chunk.length).toBeGreaterThan(0)
      break
    }
    expect((await bench().run(sandbox, 'echo on')).out).toBe('on\n')
  })
}

export function retainTests(bench: () => Bench): void {
  it('what was added, changed and deleted is in the retained layer, and the sandbox is over', async () => {
    const sandbox = await bench().sandbox()
    if (!bench().driver.features.retain) {
      await expect(sandbox.retain()).rejects.toMatchObject({ code: 'runtime/unsupported' })
      return
    }
    await bench().run(sandbox, 'mkdir -p /data/sub && echo added > /data/sub/new && echo changed >> /etc/passwd && rm /etc/group && chmod 700 /data/sub; sync')
    await using retained = await sandbox.retain()
    await expect(bench().run(sandbox, 'true')).rejects.toMatchObject({ code: 'sandbox/destroyed' })
    expect(retained.sandboxId).toBe(sandbox.id)
    expect(retained.sizeBytes).toBeGreaterThan(0)
    const entries = new Map(unpackTar(await collect(retained.export(never()))).map((entry) => [entry.path.replace(/^\.\//, '').replace(/\/$/, ''), entry]))
    expect(text(entries.get('data/sub/new')?.data ?? new Uint8Array(0))).toBe('added\n')
    expect(entries.get('data/sub')).toMatchObject({ type: 'dir', mode: 0o700 })
    expect(text(entries.get('etc/passwd')?.data ?? new Uint8Array(0))).toContain('changed\n')
    expect(entries.has('etc/.wh.group')).toBe(true)
    expect(entries.has('bin/sh')).toBe(false)
  })

  it('a retained layer can be exported twice, and releasing it frees it', async () => {
    if (!bench().driver.features.retain) return bench().lacks('retain')
    const before = bench().countHost()
    const sandbox = await bench().sandbox()
    await bench().run(sandbox, 'echo once > /kept')
    const retained = await sandbox.retain()
    const first = await collect(retained.export(never()))
    expect(await collect(retained.export(never()))).toEqual(first)
    await retained[Symbol.asyncDispose]()
    await retained[Symbol.asyncDispose]()
    expect({ ...bench().countHost(), fds: 0 }).toEqual({ ...before, fds: 0 })
  })
}
