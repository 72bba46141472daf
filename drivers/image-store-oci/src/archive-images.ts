/**
 * Finds the images in an archive: OCI image layout, or what `docker save` writes (old and new form).
 * @see OCI image-spec "Image Layout"; Docker image spec v1.2 "Combined Image JSON + Filesystem Changeset Format"
 */
import { createHash } from 'node:crypto'
import { isImageDigest, type ImageDigest } from '@faas-platform/core'
import type { Archive } from './archive.js'
import { digestOf, type BlobTransfer } from './blob-dir.js'
import type { ContentSource } from './content-store.js'
import type { Bytes } from './decompress.js'
import { isMissing } from './failures.js'
import { clip, invalidImage, MEDIA_TYPES, parseManifest, type Descriptor } from './manifest.js'

export interface ArchiveImage {
  /** As written in the archive, unchecked. Several when it carries several tags, none when it is anonymous. */
  readonly names: readonly string[]
  readonly manifest: { readonly bytes: Uint8Array; readonly mediaType?: string | undefined }
  readonly source: ContentSource
}

interface SavedImage {
  readonly config: string
  readonly layers: readonly string[]
  readonly names: readonly string[]
}

const REF_NAME = 'org.opencontainers.image.ref.name'
const CONTAINERD_NAME = 'io.containerd.image.name'
const IMAGES_MAX = 1024

/** @throws FaasError `image/invalid` */
export async function findImages(archive: Archive, options: { readonly documentBytesMax: number; readonly signal: AbortSignal }): Promise<readonly ArchiveImage[]> {
  const images = (await archive.has('index.json')) ? await layoutImages(archive, options) : undefined
  const saved = (await archive.has('manifest.json')) ? parseSaved(await archive.read('manifest.json', options.documentBytesMax)) : []
  if (images !== undefined && images.length > 0) {
    // The new `docker save` writes only the tag into the layout; the full names are in the old file beside it.
    return images.map((image) => (image.names.length > 0 || images.length > 1 ? image : { ...image, names: saved.flatMap(({ names }) => names) }))
  }
  if (saved.length === 0) throw invalidImage('The archive is neither an OCI image layout nor the output of docker save.')
  return Promise.all(saved.map((image) => savedImage(archive, image, options)))
}

async function layoutImages(archive: Archive, { documentBytesMax }: { readonly documentBytesMax: number }): Promise<readonly ArchiveImage[]> {
  const index = parseManifest(await archive.read('index.json', documentBytesMax), MEDIA_TYPES.ociIndex)
  if (index.kind !== 'index') throw invalidImage('The index.json of the archive is not an index.')
  const source: ContentSource = {
    document: (descriptor, bytesMax) => archive.read(blobName(descriptor.digest), bytesMax),
    blob: (descriptor) => fileTransfer(archive, blobName(descriptor.digest)),
  }
  const byDigest = new Map<string, { descriptor: Descriptor; names: string[] }>()
  for (const descriptor of index.manifests) {
    // Attestations and signatures travel beside the images they speak of.
    if (descriptor.annotations['vnd.docker.reference.type'] !== undefined || descriptor.platform?.os === 'unknown') continue
    const known = byDigest.get(descriptor.digest) ?? { descriptor, names: [] }
    known.names.push(...annotatedNames(descriptor))
    byDigest.set(descriptor.digest, known)
  }
  const found = [...byDigest.values()]
  // One image for several platforms may be spread over the top level, without or with the same name.
  const sameImage = found.length > 1 && found.every(({ descriptor, names }) => descriptor.platform !== undefined && names.join() === found[0]?.names.join())
  if (sameImage) {
    const manifests = found.map(({ descriptor: { mediaType, digest, size, platform } }) => ({ mediaType, digest, size, platform }))
    return [{ names: found[0]?.names ?? [], manifest: { bytes: encode({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }) }, source }]
  }
  return Promise.all(
    found.map(async ({ descriptor, names }) => {
      const bytes = await source.document(descriptor, documentBytesMax, new AbortController().signal)
      if (digestOf(bytes) !== descriptor.digest) throw invalidImage('A manifest of the archive does not have the digest it is listed with.')
      return { names, manifest: { bytes, mediaType: descriptor.mediaType }, source }
    }),
  )
}

function annotatedNames({ annotations }: Descriptor): readonly string[] {
  const full = annotations[CONTAINERD_NAME]
  if (full !== undefined && full !== '') return [full]
  const name = annotations[REF_NAME]
  // A lone word is a tag without a name (skopeo and docker write that), and can not stand for an image.
  return name !== undefined && /[/:@]/.test(name) ? [name] : []
}

/** The old form has no manifest: one is made, the same for the same content. */
async function savedImage(archive: Archive, image: SavedImage, { documentBytesMax, signal }: { readonly documentBytesMax: number; readonly signal: AbortSignal }): Promise<ArchiveImage> {
  const config = await archive.read(image.config, documentBytesMax)
  const files = new Map<string, string>([[digestOf(config), image.config]])
  const layers = []
  for (const name of image.layers) {
    const { digest, size } = await measure(archive.stream(name, signal))
    files.set(digest, name)
    layers.push({ mediaType: MEDIA_TYPES.ociLayer, digest, size })
  }
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, digest: digestOf(config), size: config.length },
    layers,
  }
  const locate = (descriptor: Descriptor): string => {
    const name = files.get(descriptor.digest)
    if (name === undefined) throw invalidImage('The archive lacks a file of the image.')
    return name
  }
  return {
    names: image.names,
    manifest: { bytes: encode(manifest), mediaType: MEDIA_TYPES.ociManifest },
    source: { document: (descriptor, bytesMax) => archive.read(locate(descriptor), bytesMax), blob: (descriptor) => fileTransfer(archive, locate(descriptor)) },
  }
}

async function measure(bytes: Bytes): Promise<{ digest: ImageDigest; size: number }> {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of bytes) {
    hash.update(chunk)
    size += chunk.length
  }
  const digest = `sha256:${hash.digest('hex')}`
  if (!isImageDigest(digest)) throw invalidImage('A layer could not be hashed.')
  return { digest, size }
}

function parseSaved(bytes: Uint8Array): readonly SavedImage[] {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder().decode(bytes))
  } catch (cause) {
    throw invalidImage('The manifest.json of the archive is not JSON.', cause)
  }
  if (!Array.isArray(value) || value.length > IMAGES_MAX) throw invalidImage('The manifest.json of the archive is not a list of images.')
  return value.map((item: unknown) => {
    if (typeof item !== 'object' || item === null || !('Config' in item) || typeof item.Config !== 'string') throw invalidImage('The manifest.json of the archive names no config.')
    return { config: item.Config, layers: texts('Layers' in item ? item.Layers : undefined), names: texts('RepoTags' in item ? item.RepoTags : undefined) }
  })
}

function texts(value: unknown): readonly string[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw invalidImage('The manifest.json of the archive is malformed.')
  return value.map((item: unknown) => {
    if (typeof item !== 'string') throw invalidImage(`The manifest.json of the archive is malformed at ${clip(String(item))}.`)
    return item
  })
}

function blobName(digest: ImageDigest): string {
  return `blobs/${digest.replace(':', '/')}`
}

/** A local file is not asked twice: what it lacks it will lack again. */
function fileTransfer(archive: Archive, name: string): BlobTransfer {
  return {
    open: async (_offset, signal) => ({ offset: 0, bytes: archive.stream(name, signal) }),
    again: async (error) => {
      if (isMissing(error)) throw invalidImage(`The archive lacks the file ${name}.`)
      return false
    },
  }
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}
