/**
 * Image archives of either kind (OCI layout, `docker save`) as one stream that every engine loads.
 *
 * Engines before 25 do not load OCI layouts, and a name inside an archive must not overwrite a name in the engine that
 * nobody asked for. So each image is written anew as a `docker save` archive, holding exactly the names it shall get.
 *
 * I1. A blob with a known digest is checked while it is streamed; a wrong one breaks the stream before its end, and the
 *     engine, which unpacks only complete archives, keeps nothing of it.
 * I2. Nothing of an archive is written outside the given temporary directory.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { mkdir, open, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import { FaasError } from '@faas-platform/core'
import tar from 'tar-stream'

const JSON_BYTES_MAX = 8 * 1024 * 1024
const ENTRIES_MAX = 10_000
const INDEX_DEPTH_MAX = 3
const BLOB = /^blobs\/sha256\/([0-9a-f]{64})$/

interface Blob {
  readonly file: string
  readonly sizeBytes: number
  /** Hex of SHA-256; null when the archive does not name it. */
  readonly sha256: string | null
}

/** One image found in an archive. */
export interface ArchivedImage {
  /** References as the archive has them. */
  readonly names: readonly string[]
  readonly config: Blob
  readonly layers: readonly Blob[]
}

export interface Platform {
  readonly os: string
  readonly architecture: string
}

/** Unpacks a tar (gzip allowed) of an archive, so that its parts can be read in any order. I2. */
export async function unpackArchive(file: string, into: string, options: { readonly bytesMax: number; readonly signal: AbortSignal }): Promise<void> {
  const extract = tar.extract()
  let bytes = 0
  let entries = 0
  const work = (async () => {
    for await (const entry of extract) {
      const { name, type, size = 0, linkname } = entry.header
      if (++entries > ENTRIES_MAX) throw invalid('The archive has too many entries.')
      if ((bytes += size) > options.bytesMax) throw new FaasError('image/too-large', { message: 'The image archive is larger than the limit.', details: { bytesMax: options.bytesMax } })
      const target = inside(into, name)
      await mkdir(path.dirname(target), { recursive: true })
      if (type === 'file' || type === 'contiguous-file') {
        await pipeline(entry, createWriteStream(target, { flags: 'wx', mode: 0o600 }), { signal: options.signal })
      } else {
        // Old `docker save` archives share equal layers by symbolic link; written as a pointer file, never as a link.
        if (type === 'symlink') await pipeline([POINTER + path.posix.join(path.posix.dirname(name), linkname ?? '')], createWriteStream(target, { flags: 'wx' }))
        entry.resume()
      }
    }
  })()
  const source = createReadStream(file)
  const chain = (await isGzip(file)) ? pipeline(source, createGunzip(), extract, { signal: options.signal }) : pipeline(source, extract, { signal: options.signal })
  // Both must settle before anybody removes the directory.
  const [worked, chained] = await Promise.allSettled([work, chain])
  options.signal.throwIfAborted()
  for (const result of [worked, chained]) {
    if (result.status === 'fulfilled') continue
    if (result.reason instanceof FaasError) throw result.reason
  }
  const failed = [worked, chained].find((result) => result.status === 'rejected')
  if (failed?.status === 'rejected') throw invalid('The image archive can not be read: it is damaged or not a tar.', failed.reason)
}

const POINTER = 'faas-archive-pointer:'

/** The images in an unpacked archive or layout directory. @throws FaasError `image/invalid`, `image/platform-mismatch` */
export async function readArchive(root: string, platform: Platform): Promise<readonly ArchivedImage[]> {
  const manifest = await readJson(root, 'manifest.json')
  if (manifest !== undefined) return await readSaved(root, manifest)
  const index = await readJson(root, 'index.json')
  if (index === undefined) throw invalid('The archive is neither an OCI image layout nor a "docker save" archive.')
  return await readIndex(root, index, platform, 0)
}

async function readSaved(root: string, manifest: unknown): Promise<readonly ArchivedImage[]> {
  if (!Array.isArray(manifest)) throw invalid('The manifest of the archive is not a list.')
  return await Promise.all(
    manifest.map(async (entry: unknown) => {
      const { Config, Layers, RepoTags } = record(entry)
      const layers = Array.isArray(Layers) ? Layers : []
      return {
        names: Array.isArray(RepoTags) ? RepoTags.filter((name) => typeof name === 'string') : [],
        config: await findBlob(root, String(Config)),
        layers: await Promise.all(layers.map((layer) => findBlob(root, String(layer)))),
      }
    }),
  )
}

async function readIndex(root: string, index: unknown, platform: Platform, depth: number): Promise<readonly ArchivedImage[]> {
  if (depth > INDEX_DEPTH_MAX) throw invalid('The image index is nested too deeply.')
  const { manifests } = record(index)
  if (!Array.isArray(manifests) || manifests.length === 0) throw invalid('The image index is empty.')
  const images: ArchivedImage[] = []
  let otherPlatform = false
  for (const descriptor of manifests as unknown[]) {
    const { digest, annotations, platform: wanted } = record(descriptor)
    const names = namesOf(annotations)
    if (wanted !== undefined && wanted !== null) {
      const { os, architecture } = record(wanted)
      if (os !== platform.os || architecture !== platform.architecture) {
        otherPlatform = true
        continue
      }
    }
    const body = await readDigest(root, digest)
    const found = Array.isArray(record(body).manifests) ? await readIndex(root, body, platform, depth + 1) : [await readManifest(root, body)]
    images.push(...found.map((image) => ({ ...image, names: names.length > 0 ? names : image.names })))
  }
  if (images.length === 0 && otherPlatform) {
    throw new FaasError('image/platform-mismatch', { message: `The archive has no image for ${platform.os}/${platform.architecture}.` })
  }
  return images
}

async function readManifest(root: string, manifest: unknown): Promise<ArchivedImage> {
  const { config, layers } = record(manifest)
  if (!Array.isArray(layers)) throw invalid('The image manifest has no layers.')
  const blob = async (descriptor: unknown): Promise<Blob> => {
    const { digest, size } = record(descriptor)
    const found = await findBlob(root, blobPath(digest))
    if (found.sizeBytes !== size) throw mismatch()
    return found
  }
  return { names: [], config: await blob(config), layers: await Promise.all(layers.map(blob)) }
}

/** The image as a `docker save` archive that gives it exactly `names`. I1. */
export function dockerArchive(image: ArchivedImage, names: readonly string[], signal: AbortSignal): Readable {
  const pack = tar.pack()
  const write = async (): Promise<void> => {
    const parts = [{ blob: image.config, name: 'config.json' }, ...image.layers.map((blob, index) => ({ blob, name: `${index}/layer.tar` }))]
    for (const { blob, name } of parts) {
      signal.throwIfAborted()
      const hash = createHash('sha256')
      const entry = pack.entry({ name, size: blob.sizeBytes })
      const source = createReadStream(blob.file, { end: Math.max(0, blob.sizeBytes - 1) })
      source.on('data', (chunk) => hash.update(chunk))
      await pipeline(source, entry, { signal })
      if (blob.sha256 !== null && hash.digest('hex') !== blob.sha256) throw mismatch()
    }
    const manifest = [{ Config: 'config.json', RepoTags: names, Layers: image.layers.map((_layer, index) => `${index}/layer.tar`) }]
    pack.entry({ name: 'manifest.json' }, JSON.stringify(manifest))
    pack.finalize()
  }
  write().catch((error: unknown) => {
    pack.destroy(error instanceof Error ? error : new FaasError('image/invalid', { message: 'The image could not be read.', cause: error }))
  })
  return pack as unknown as Readable // a streamx stream: the same surface, other typings
}

async function findBlob(root: string, name: string, depth = 0): Promise<Blob> {
  const file = inside(root, name)
  const info = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') throw invalid('The archive lacks a part that its manifest names.', error)
    throw error
  })
  if (!info.isFile()) throw invalid('A part of the archive is no file.')
  if (info.size < 4096 && info.size > POINTER.length) {
    const head = await readFile(file, 'utf8')
    if (head.startsWith(POINTER)) {
      if (depth > 0) throw invalid('A link in the archive leads to a link.')
      return await findBlob(root, head.slice(POINTER.length), depth + 1)
    }
  }
  return { file, sizeBytes: info.size, sha256: BLOB.exec(path.posix.normalize(name))?.[1] ?? null }
}

async function readDigest(root: string, digest: unknown): Promise<unknown> {
  const name = blobPath(digest)
  const body = await readBounded(inside(root, name))
  if (body === undefined) throw invalid('The archive lacks a part that its index names.')
  if (`sha256:${createHash('sha256').update(body).digest('hex')}` !== digest) throw mismatch()
  return parse(body)
}

async function readJson(root: string, name: string): Promise<unknown> {
  const body = await readBounded(inside(root, name))
  return body === undefined ? undefined : parse(body)
}

async function readBounded(file: string): Promise<Buffer | undefined> {
  const info = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined
    throw error
  })
  if (info === undefined) return undefined
  if (info.size > JSON_BYTES_MAX) throw invalid('A manifest of the archive is too large.')
  return await readFile(file)
}

function parse(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString('utf8'))
  } catch (error) {
    throw invalid('A manifest of the archive is not JSON.', error)
  }
}

function blobPath(digest: unknown): string {
  if (typeof digest !== 'string' || !/^sha256:[0-9a-f]{64}$/.test(digest)) throw invalid('The archive names a part by something that is no SHA-256 digest.')
  return `blobs/sha256/${digest.slice(7)}`
}

/** `org.opencontainers.image.ref.name` is a mere tag with some tools; containerd's annotation is always whole. */
function namesOf(annotations: unknown): readonly string[] {
  if (annotations === undefined || annotations === null) return []
  const found = record(annotations)
  const name = found['io.containerd.image.name'] ?? found['org.opencontainers.image.ref.name']
  return typeof name === 'string' && /[/:]/.test(name) ? [name] : []
}

function record(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) throw invalid('A manifest of the archive has the wrong form.')
  return value as Readonly<Record<string, unknown>>
}

function inside(root: string, name: string): string {
  const target = path.resolve(root, name)
  if (target !== root && !target.startsWith(root + path.sep)) throw invalid('A path in the archive leads out of it.')
  return target
}

async function isGzip(file: string): Promise<boolean> {
  const handle = await open(file)
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2), 0, 2, 0)
    return bytesRead === 2 && buffer[0] === 0x1f && buffer[1] === 0x8b
  } finally {
    await handle.close()
  }
}

function invalid(message: string, cause?: unknown): FaasError {
  return new FaasError('image/invalid', { message, cause })
}

function mismatch(): FaasError {
  return new FaasError('image/digest-mismatch', { message: 'A part of the archive does not have the digest or size it is announced with.' })
}
