/** Images made to hurt: links where the runtime mounts, paths that lead out of a layer, device nodes. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, copyFile, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FaasError, type ImageConfig } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { utf8 } from '../bytes.js'
import { packTar, type TarEntry } from '../tar.js'
import { never, PATH, repositoryRoot, specOf, type Bench } from './bench.js'

const CONFIG: ImageConfig = { env: { PATH }, entrypoint: [], cmd: ['/bin/sh'], workingDir: '/', user: '', labels: {} }
const REFUSED = /^(image\/invalid|sandbox\/create-failed|execution\/spawn-failed)$/

export function hostileImageTests(bench: () => Bench): void {
  it.each(['dev', 'proc', 'sys', 'tmp', 'etc', 'run', 'run/faas', '.faas'])('an image whose /%s is a link to a directory of the host touches nothing there', async (name) => {
    const host = await mkdtemp(join(tmpdir(), 'faas-canary-'))
    const rootfs = await mkdtemp(join(tmpdir(), 'faas-rootfs-'))
    const reference = `hostile/link-${name.replace(/[^a-z]/g, '')}:1`
    try {
      await mkdir(join(rootfs, 'bin'))
      await copyFile(join(repositoryRoot(), '.tools/bin/busybox'), join(rootfs, 'bin/busybox'))
      await chmod(join(rootfs, 'bin/busybox'), 0o755)
      await symlink('busybox', join(rootfs, 'bin/sh'))
      if (name.includes('/')) await mkdir(join(rootfs, name, '..'), { recursive: true })
      await symlink(host, join(rootfs, name))
      const outcome = await bench().driver.images.buildFromRootfs(rootfs, { reference, config: CONFIG, signal: never() })
        .then(async () => {
          const image = await bench().driver.images.resolve(reference, { pull: 'never', signal: never() })
          await using sandbox = await bench().driver.create(specOf(image), { signal: never() })
          return (await bench().run(sandbox, `echo alive; echo planted > /${name}/planted`)).out
        }).catch((error: unknown) => error)
      if (outcome instanceof FaasError) expect(outcome.code).toMatch(REFUSED)
      else expect(outcome).toBe('alive\n')
      expect(await readdir(host)).toEqual([])
    } finally {
      await bench().driver.images.remove(reference, never()).catch(() => undefined)
      await rm(rootfs, { recursive: true, force: true })
      await rm(host, { recursive: true, force: true })
    }
  })

  const layers: readonly [title: string, entries: (outside: string) => TarEntry[]][] = [
    ['leads up with ..', (outside) => [{ path: `../../../../../../../..${outside}/planted`, type: 'file', data: utf8('x') }]],
    ['writes through an absolute link', (outside) => [{ path: 'out', type: 'symlink', linkTarget: outside }, { path: 'out/planted', type: 'file', data: utf8('x') }]],
    ['writes through a link that leads up', (outside) => [{ path: 'up', type: 'symlink', linkTarget: `../../../../../../../../../..${outside}` }, { path: 'up/planted', type: 'file', data: utf8('x') }]],
    ['hard-links a file of the host', () => [{ path: 'stolen', type: 'hardlink', linkTarget: '../../../../../../../../../../etc/shadow' }]],
    ['removes by a whiteout that leads up', (outside) => [{ path: `../../../../../../../..${outside}/.wh.precious`, type: 'file', data: utf8('') }]],
    ['names the layer itself', () => [{ path: '..', type: 'dir', mode: 0o777 }]],
    ['holds a device node', () => [{ path: 'disk', type: 'block', mode: 0o666 }, { path: 'mem', type: 'char', mode: 0o666 }]],
  ]
  it.each(layers)('a layer that %s is refused or harmless', async (title, entries) => {
    const outside = await mkdtemp(join(tmpdir(), 'faas-outside-'))
    const layout = await mkdtemp(join(tmpdir(), 'faas-layout-'))
    const reference = `hostile/layer-${title.replace(/[^a-z]/g, '')}:1`
    try {
      await writeFile(join(outside, 'precious'), 'kept')
      await writeLayout(layout, entries(outside))
      const outcome = await bench().driver.images.importArchive(layout, { reference, signal: never() }).then(async () => {
        const image = await bench().driver.images.resolve(reference, { pull: 'never', signal: never() })
        await using sandbox = await bench().driver.create(specOf(image), { signal: never() })
        // There is no shell in this image: only the copy can look inside.
        return await stolenBytes(sandbox.copyOut('/stolen', { signal: never() }))
      }).catch((error: unknown) => error)
      if (outcome instanceof FaasError) expect(outcome.code).toMatch(/^(image\/invalid|sandbox\/|execution\/)/)
      else expect(outcome).toBe(0)
      expect(await readdir(outside)).toEqual(['precious'])
      expect(existsSync('/planted')).toBe(false)
    } finally {
      await bench().driver.images.remove(reference, never()).catch(() => undefined)
      await rm(outside, { recursive: true, force: true })
      await rm(layout, { recursive: true, force: true })
    }
  })
}

async function stolenBytes(tar: AsyncIterable<Uint8Array>): Promise<number> {
  let bytes = 0
  for await (const chunk of tar) bytes += chunk.length
  return bytes
}

/** An OCI image layout with one layer of the given entries. */
async function writeLayout(dir: string, entries: readonly TarEntry[]): Promise<void> {
  const put = async (bytes: Uint8Array): Promise<{ digest: string; size: number }> => {
    const hex = createHash('sha256').update(bytes).digest('hex')
    await writeFile(join(dir, 'blobs/sha256', hex), bytes)
    return { digest: `sha256:${hex}`, size: bytes.length }
  }
  await mkdir(join(dir, 'blobs/sha256'), { recursive: true })
  const layer = await put(packTar(entries))
  const architecture = process.arch === 'arm64' ? 'arm64' : 'amd64'
  const config = await put(utf8(JSON.stringify({ architecture, os: 'linux', config: {}, rootfs: { type: 'layers', diff_ids: [layer.digest] } })))
  const manifest = await put(utf8(JSON.stringify({
    schemaVersion: 2, mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...config },
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', ...layer }],
  })))
  await writeFile(join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  await writeFile(join(dir, 'index.json'), JSON.stringify({
    schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: [{ mediaType: 'application/vnd.oci.image.manifest.v1+json', ...manifest, platform: { architecture, os: 'linux' } }],
  }))
}
