/**
 * Writes a single-image OCI layout directory with one gzip layer.
 * @see OCI image-spec: image-layout.md, manifest.md, config.md
 */
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip } from 'node:zlib'
import { normalizeEntries, tarStream } from './tar.mjs'

const MEDIA = {
  index: 'application/vnd.oci.image.index.v1+json',
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
}
const ARCHITECTURE = { x64: 'amd64', arm64: 'arm64' }
const EPOCH = '1970-01-01T00:00:00Z'

/**
 * Builds the layout beside its place and moves it there whole.
 * @param {object} options
 * @param {string} options.dir Final directory; an older layout there is replaced.
 * @param {string} options.ref Value of `org.opencontainers.image.ref.name`, e.g. `faas/base:latest`.
 * @param {Iterable<import('./tar.mjs').TarEntry>} options.entries
 * @param {{ Env?: string[], Cmd?: string[], WorkingDir?: string, Labels?: Record<string, string> }} options.config
 * @returns {Promise<{ digest: string, sizeBytes: number }>} Manifest digest and compressed layer size.
 */
export async function writeOciLayout({ dir, ref, entries, config }) {
  const work = `${dir}.new`
  await rm(work, { recursive: true, force: true })
  const blobs = join(work, 'blobs', 'sha256')
  await mkdir(blobs, { recursive: true })

  const layer = await writeLayer(blobs, entries)
  const configBlob = await writeJson(blobs, MEDIA.config, {
    created: EPOCH,
    architecture: ARCHITECTURE[process.arch] ?? process.arch,
    os: 'linux',
    config,
    rootfs: { type: 'layers', diff_ids: [layer.diffId] },
    history: [{ created: EPOCH, created_by: `faas image build ${ref}` }],
  })
  const manifest = await writeJson(blobs, MEDIA.manifest, {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: configBlob,
    layers: [layer.descriptor],
  })
  await writeFile(join(work, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }))
  await writeFile(
    join(work, 'index.json'),
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA.index,
      manifests: [
        {
          ...manifest,
          platform: { architecture: ARCHITECTURE[process.arch] ?? process.arch, os: 'linux' },
          annotations: { 'org.opencontainers.image.ref.name': ref },
        },
      ],
    }),
  )
  await rm(dir, { recursive: true, force: true })
  await rename(work, dir)
  return { digest: manifest.digest, sizeBytes: layer.descriptor.size }
}

async function writeLayer(blobs, entries) {
  const file = join(blobs, 'layer.partial')
  const plain = hashing()
  const packed = hashing()
  const tar = Readable.from(tarStream(normalizeEntries(entries)), { objectMode: false })
  await pipeline(tar, plain.stream, createGzip({ level: 6 }), packed.stream, createWriteStream(file))
  const digest = packed.digest()
  await rename(file, join(blobs, digest.slice('sha256:'.length)))
  return { diffId: plain.digest(), descriptor: { mediaType: MEDIA.layer, digest, size: packed.size() } }
}

async function writeJson(blobs, mediaType, value) {
  const body = JSON.stringify(value)
  const hex = createHash('sha256').update(body).digest('hex')
  await writeFile(join(blobs, hex), body)
  return { mediaType, digest: `sha256:${hex}`, size: Buffer.byteLength(body) }
}

function hashing() {
  const hash = createHash('sha256')
  let bytes = 0
  const stream = new Transform({
    transform(chunk, _encoding, done) {
      hash.update(chunk)
      bytes += chunk.length
      done(null, chunk)
    },
  })
  return { stream, size: () => bytes, digest: () => `sha256:${hash.digest('hex')}` }
}
