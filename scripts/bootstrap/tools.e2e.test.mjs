/** What `npm test` has fetched and built before it started these tests. */
import { existsSync, readFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ensureImages, IMAGE_NAMES } from './base-image.mjs'
import { BIN_DIR, IMAGES_DIR, pathWithTools } from './paths.mjs'
import { isExecutable, run } from './process.mjs'
import { TOOLS } from './tool-catalog.mjs'
import { ensureTools, readManifest } from './tools.mjs'

const manifest = readManifest()
const fetched = manifest.tools.length > 0
const env = { ...process.env, PATH: pathWithTools() }

describe.skipIf(!fetched)('fetched tools (npm test fetches them)', () => {
  it('are all there, executable, with their origin', () => {
    expect(manifest.missing).toEqual([])
    for (const { name } of TOOLS) {
      const tool = manifest.tools.find((entry) => entry.name === name)
      expect(tool, name).toMatchObject({ path: join(BIN_DIR, name), source: expect.stringMatching(/^(debian|host) /) })
      expect(isExecutable(tool.path), name).toBe(true)
    }
  })

  it('cost no time when nothing changed', async () => {
    const startedAt = performance.now()
    await ensureTools()
    expect(performance.now() - startedAt).toBeLessThan(300)
  })

  it('hold no runc with a known escape', () => {
    const runc = manifest.tools.find(({ name }) => name === 'runc')
    expect(runc.cveNotes.filter((note) => note.includes('NOT FIXED'))).toEqual([])
  })

  it.each(['runc', 'crun', 'runsc', 'criu'])('%s was proved on this host', (name) => {
    expect(manifest.tools.find((tool) => tool.name === name)?.proof).toMatch(/^(ran a busybox container in|criu check: Looks good)/)
  })

  it.each([
    ['nft', ['--version'], /nftables/],
    ['iptables', ['--version'], /iptables v/],
    ['dockerd', ['--version'], /Docker version/],
    ['docker-registry', ['--version'], /docker-registry/],
  ])('%s runs on its own libraries', async (name, args, expected) => {
    const { stdout } = await run(join(BIN_DIR, name), args, { env })
    expect(stdout).toMatch(expected)
  })
})

describe.skipIf(!fetched)('offline images', () => {
  it.each(IMAGE_NAMES)('%s is a layout whose every blob has its own digest', async (name) => {
    const [image] = await ensureImages([name])
    const blob = (descriptor) => {
      const body = readFileSync(join(image.dir, 'blobs', ...descriptor.digest.split(':')))
      expect(`sha256:${createHash('sha256').update(body).digest('hex')}`).toBe(descriptor.digest)
      return body
    }
    const index = JSON.parse(readFileSync(join(IMAGES_DIR, name, 'index.json'), 'utf8'))
    expect(index.manifests[0]).toMatchObject({ digest: image.digest, annotations: { 'org.opencontainers.image.ref.name': image.ref } })
    const layout = JSON.parse(blob(index.manifests[0]))
    expect(JSON.parse(blob(layout.config)).config.Env[0]).toMatch(/^PATH=/)
    expect(blob(layout.layers[0]).length).toBe(layout.layers[0].size)
    expect(existsSync(join(IMAGES_DIR, `${name}.stamp.json`))).toBe(true)
  })
})
