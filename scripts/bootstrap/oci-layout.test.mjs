import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { writeOciLayout } from './oci-layout.mjs'
import { entriesFromDirectory, normalizeEntries } from './tar.mjs'

const LONG = `deep/${'directory-with-a-long-name/'.repeat(8)}file`
const digestOf = (body) => `sha256:${createHash('sha256').update(body).digest('hex')}`
let work

beforeEach(() => {
  work = mkdtempSync(join(tmpdir(), 'faas-layout-'))
})
afterEach(() => rmSync(work, { recursive: true, force: true }))

function entries() {
  return [
    { path: 'tmp', type: 'directory', mode: 0o1777 },
    { path: 'bin/tool', type: 'file', mode: 0o755, content: 'x'.repeat(1000) },
    { path: 'bin/sh', type: 'symlink', target: '/bin/tool' },
    { path: LONG, type: 'file', mode: 0o600, content: 'ü' },
    { path: 'empty', type: 'file', mode: 0o644, content: '' },
  ]
}

async function build(name, list = entries()) {
  const dir = join(work, name)
  const result = await writeOciLayout({ dir, ref: 'faas/test:1', entries: list, config: { Env: ['PATH=/bin'] } })
  return { dir, ...result }
}

function readLayout(dir) {
  const blob = (descriptor) => {
    const body = readFileSync(join(dir, 'blobs', ...descriptor.digest.split(':')))
    expect(digestOf(body)).toBe(descriptor.digest)
    expect(body.length).toBe(descriptor.size)
    return body
  }
  const index = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8'))
  const manifest = JSON.parse(blob(index.manifests[0]))
  return { index, manifest, config: JSON.parse(blob(manifest.config)), layer: gunzipSync(blob(manifest.layers[0])) }
}

describe('OCI layout', () => {
  it('holds blobs under their own digests, from the index down to the layer', async () => {
    const { dir, digest } = await build('one')
    const { index, manifest, config, layer } = readLayout(dir)
    expect(JSON.parse(readFileSync(join(dir, 'oci-layout'), 'utf8'))).toEqual({ imageLayoutVersion: '1.0.0' })
    expect(index.manifests[0].digest).toBe(digest)
    expect(index.manifests[0].annotations['org.opencontainers.image.ref.name']).toBe('faas/test:1')
    expect(manifest.layers[0].mediaType).toBe('application/vnd.oci.image.layer.v1.tar+gzip')
    expect(config.rootfs.diff_ids).toEqual([digestOf(layer)])
    expect(readdirSync(join(dir, 'blobs/sha256'))).toHaveLength(3)
  })

  it('is the same byte for byte when built again, whatever the order and the files\' times', async () => {
    const source = join(work, 'source')
    mkdirSync(join(source, 'a'), { recursive: true })
    writeFileSync(join(source, 'a/b'), 'content', { mode: 0o640 })
    symlinkSync('b', join(source, 'a/link'))
    const first = await build('first', [...entries(), ...entriesFromDirectory(source)])
    utimesSync(join(source, 'a/b'), 1, 1)
    const second = await build('second', [...entriesFromDirectory(source), ...entries().reverse()])
    expect(second.digest).toBe(first.digest)
  })

  it('is read by tar with owners, modes, links and long names intact', async () => {
    const { dir } = await build('tar')
    const file = join(work, 'layer.tar')
    writeFileSync(file, readLayout(dir).layer)
    const lines = execFileSync('tar', ['--numeric-owner', '-tvf', file], { encoding: 'utf8', env: { ...process.env, TZ: 'UTC' } }).trim().split('\n')
    expect(lines).toContainEqual(expect.stringMatching(/^drwxrwxrwt 0\/0 +0 1970-01-01 00:00 tmp\/$/))
    expect(lines).toContainEqual(expect.stringMatching(/^-rwxr-xr-x 0\/0 +1000 1970-01-01 00:00 bin\/tool$/))
    expect(lines).toContainEqual(expect.stringMatching(/^lrwxrwxrwx 0\/0 .* bin\/sh -> \/bin\/tool$/))
    expect(lines).toContainEqual(expect.stringMatching(new RegExp(`^-rw------- 0/0 +2 .* ${LONG}$`)))
    expect(execFileSync('tar', ['-xOf', file, LONG], { encoding: 'utf8' })).toBe('ü')
  })

  it('adds parent directories and lets the last of two entries win', () => {
    const list = normalizeEntries([
      { path: 'a/b/c', type: 'file', mode: 0o644, content: 'one' },
      { path: 'a/b/c', type: 'file', mode: 0o644, content: 'two' },
    ])
    expect(list.map(({ path }) => path)).toEqual(['a', 'a/b', 'a/b/c'])
    expect(list[2].content).toBe('two')
  })
})
