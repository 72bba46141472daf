import { buffer } from 'node:stream/consumers'
import { Readable } from 'node:stream'
import tar from 'tar-stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DockerDriver } from './docker-driver.js'
import { realDriver, sh, type RealDriver } from './testing/real-driver.js'

const signal = AbortSignal.timeout(300_000)
let real: RealDriver

beforeAll(async () => {
  real = await realDriver()
})

afterAll(async () => {
  await real[Symbol.asyncDispose]()
})

/** Name → type and content, in the archive's order. */
async function entries(bytes: AsyncIterable<Uint8Array>): Promise<Map<string, { readonly type: string; readonly content: string; readonly linkname: string | null; readonly mode: number; readonly uid: number }>> {
  const found = new Map<string, { type: string; content: string; linkname: string | null; mode: number; uid: number }>()
  const extract = tar.extract()
  Readable.from(bytes).pipe(extract as unknown as NodeJS.WritableStream)
  for await (const entry of extract) {
    const { name, type, linkname, mode, uid } = entry.header
    expect(found.has(name), `${name} twice`).toBe(false)
    found.set(name, { type, content: (await buffer(entry as unknown as Readable)).toString(), linkname, mode, uid })
  }
  return found
}

describe('the retained state of a sandbox', () => {
  test('holds exactly what the guest changed, as an OCI layer', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    await sh(sandbox, [
      'mkdir -p /new/deep/er; echo 1 > /new/deep/file; ln -s /etc/passwd /new/link; ln /new/deep/file /new/hard',
      'echo changed >> /etc/passwd; chmod 600 /etc/passwd',
      'rm /usr/bin/yes',
      'echo own > /own; chown 7:8 /own; chmod 4755 /own',
    ].join('; '))
    const state = await sandbox.retain()
    expect((await sandbox.exited).reason).toBe('destroyed')
    expect(await real.driver.list(signal)).toContain(sandbox.id)
    expect(state.sizeBytes).toBeGreaterThan(0)
    const found = await entries(state.export(signal))
    expect(found.get('new/')?.type).toBe('directory')
    expect(found.get('new/deep/er/')?.type).toBe('directory')
    expect(found.get('new/link')).toMatchObject({ type: 'symlink', linkname: '/etc/passwd' })
    const [file, hard] = [found.get('new/deep/file'), found.get('new/hard')]
    expect([file?.type, hard?.type].sort()).toEqual(['file', 'link'])
    expect([file?.content, hard?.content].sort()).toEqual(['', '1\n'])
    expect([file?.linkname, hard?.linkname].some((name) => name === 'new/deep/file' || name === 'new/hard')).toBe(true)
    expect(found.get('etc/passwd')?.content).toContain('changed')
    expect(found.get('etc/passwd')?.mode).toBe(0o600)
    expect(found.get('own')).toMatchObject({ content: 'own\n', uid: 7, mode: 0o4755 })
    expect(found.get('usr/bin/.wh.yes')?.type).toBe('file')
    expect([...found.keys()].filter((name) => name.includes('.faas'))).toEqual([])
    // Only what was changed: the directory of a changed file comes with its own entry alone.
    expect(found.has('etc/')).toBe(true)
    expect(found.has('etc/group')).toBe(false)
    await state[Symbol.asyncDispose]()
    await state[Symbol.asyncDispose]()
    expect(await real.driver.list(signal)).not.toContain(sandbox.id)
  })

  test('a directory that was replaced hides what the image has in it', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    await sh(sandbox, 'rm -rf /var; mkdir -p /var/only; rm -rf /home; mkdir /home; echo new > /home/only')
    await using state = await sandbox.retain()
    const names = [...(await entries(state.export(signal))).keys()]
    for (const dir of ['var', 'home']) {
      expect(names).toContain(`${dir}/`)
      expect(names.some((name) => name === `${dir}/only` || name === `${dir}/only/`)).toBe(true)
    }
    // Engines say it in one of two ways, which mean the same: the directory is opaque, or each of its former entries is gone.
    expect(names.some((name) => name === 'home/.wh..wh..opq' || name.startsWith('home/.wh.'))).toBe(true)
  })

  test('survives the driver that made it, and is reclaimed unless it is to be kept', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    await sh(sandbox, 'echo x > /x')
    await sandbox.retain()
    const other = { driver: new DockerDriver(real.options) }
    expect((await other.driver.reclaim(new Set([sandbox.id]), signal)).sandboxes).toBe(0)
    expect(await other.driver.list(signal)).toContain(sandbox.id)
    expect((await other.driver.reclaim(new Set(), signal)).sandboxes).toBe(1)
    expect(await other.driver.list(signal)).not.toContain(sandbox.id)
  })

  test('a paused sandbox can be retained', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    await sh(sandbox, 'echo x > /x')
    await sandbox.pause()
    await using state = await sandbox.retain()
    expect((await entries(state.export(signal))).get('x')?.content).toBe('x\n')
  })
})
