/**
 * Manifests, indexes and configs: untrusted JSON becomes domain types here.
 * @see OCI image-spec "Image Manifest", "Image Index", "Image Configuration"; Docker "Image Manifest V 2, Schema 2"
 */
import { FaasError, isImageDigest, type ImageConfig, type ImageDigest } from '@faas-platform/core'

export const MEDIA_TYPES = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociLayerGzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
} as const

/** What is asked of a registry, best first. */
export const MANIFEST_ACCEPT = [MEDIA_TYPES.ociIndex, MEDIA_TYPES.dockerList, MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerManifest].join(', ')

const CONFIG_TYPES: ReadonlySet<string> = new Set([MEDIA_TYPES.ociConfig, MEDIA_TYPES.dockerConfig])
const LAYER_COMPRESSION: ReadonlyMap<string, Compression> = new Map([
  [MEDIA_TYPES.ociLayer, 'none'],
  [MEDIA_TYPES.ociLayerGzip, 'gzip'],
  ['application/vnd.oci.image.layer.v1.tar+zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
])

export type Compression = 'none' | 'gzip' | 'zstd'

/** Layers overlayfs mounts at once with room to spare; Docker's own limit. */
export const LAYERS_MAX = 127
const INDEX_ENTRIES_MAX = 1024

export interface Descriptor {
  readonly mediaType: string
  readonly digest: ImageDigest
  readonly size: number
  readonly platform?: { readonly os: string; readonly architecture: string; readonly variant: string }
  readonly annotations: Readonly<Record<string, string>>
}

export interface Manifest {
  readonly kind: 'manifest'
  readonly config: Descriptor
  readonly layers: readonly (Descriptor & { readonly compression: Compression })[]
}

export interface Index {
  readonly kind: 'index'
  readonly manifests: readonly Descriptor[]
}

export interface ConfigFile {
  readonly config: ImageConfig
  readonly diffIds: readonly ImageDigest[]
  readonly os: string
  readonly architecture: string
  readonly variant: string
}

type Json = Readonly<Record<string, unknown>>

/** @throws FaasError `image/invalid` */
export function parseManifest(bytes: Uint8Array, announcedType?: string): Manifest | Index {
  const json = parseObject(bytes, 'manifest')
  const stated = typeof json['mediaType'] === 'string' ? json['mediaType'] : undefined
  const type = stated ?? announcedType
  if (json['schemaVersion'] !== 2) throw invalidImage('The manifest has an unsupported schema version; only version 2 is understood.')
  const isIndex = type === MEDIA_TYPES.ociIndex || type === MEDIA_TYPES.dockerList
  const isManifest = type === MEDIA_TYPES.ociManifest || type === MEDIA_TYPES.dockerManifest
  if (type !== undefined && !isIndex && !isManifest) throw invalidImage(`The manifest has the unsupported media type "${clip(type)}".`)
  // A document that reads as both is the attack of CVE-2021-41190: two readers would see two images.
  if ('manifests' in json && ('layers' in json || 'config' in json)) throw invalidImage('The manifest is ambiguous: it is an index and a manifest at once.')
  if (isIndex || (type === undefined && 'manifests' in json)) {
    return { kind: 'index', manifests: array(json['manifests'], 'manifests', INDEX_ENTRIES_MAX).map(parseDescriptor) }
  }
  const config = parseDescriptor(json['config'])
  if (!CONFIG_TYPES.has(config.mediaType)) throw invalidImage(`This is not a container image: its config has the media type "${clip(config.mediaType)}".`)
  const layers = array(json['layers'], 'layers', LAYERS_MAX).map(parseLayer)
  if (layers.length === 0) throw invalidImage('The image has no layers, so nothing could run in it.')
  return { kind: 'manifest', config, layers }
}

/** @throws FaasError `image/invalid` */
export function parseConfig(bytes: Uint8Array): ConfigFile {
  const json = parseObject(bytes, 'image config')
  const rootfs = object(json['rootfs'], 'rootfs')
  const diffIds = array(rootfs['diff_ids'], 'rootfs.diff_ids', LAYERS_MAX).map((id) => {
    if (typeof id !== 'string' || !isImageDigest(id)) throw invalidImage('The image config has a malformed diff_id.')
    return id
  })
  const run = json['config'] === undefined || json['config'] === null ? {} : object(json['config'], 'config')
  return {
    config: {
      env: parseEnv(strings(run['Env'], 'Env')),
      entrypoint: strings(run['Entrypoint'], 'Entrypoint'),
      cmd: strings(run['Cmd'], 'Cmd'),
      workingDir: text(run['WorkingDir'], 'WorkingDir'),
      user: text(run['User'], 'User'),
      labels: parseLabels(run['Labels']),
    },
    diffIds,
    os: text(json['os'], 'os'),
    architecture: text(json['architecture'], 'architecture'),
    variant: text(json['variant'], 'variant'),
  }
}

/** @throws FaasError `image/invalid` */
export function parseDescriptor(value: unknown): Descriptor {
  const json = object(value, 'descriptor')
  const { mediaType, digest, size } = json
  if (typeof digest !== 'string' || !isImageDigest(digest)) throw invalidImage('A descriptor has no sha256 digest; other algorithms are not supported.')
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) throw invalidImage('A descriptor has no valid size.')
  if (typeof mediaType !== 'string' || mediaType === '') throw invalidImage('A descriptor has no media type.')
  const platform = json['platform'] === undefined ? undefined : object(json['platform'], 'platform')
  return {
    mediaType,
    digest,
    size,
    annotations: parseLabels(json['annotations']),
    ...(platform !== undefined && {
      platform: { os: text(platform['os'], 'os'), architecture: text(platform['architecture'], 'architecture'), variant: text(platform['variant'], 'variant') },
    }),
  }
}

function parseLayer(value: unknown): Manifest['layers'][number] {
  const descriptor = parseDescriptor(value)
  const compression = LAYER_COMPRESSION.get(descriptor.mediaType)
  // Among them "foreign" layers, whose content lies at addresses the image chooses.
  if (compression === undefined) throw invalidImage(`A layer has the unsupported media type "${clip(descriptor.mediaType)}".`)
  return { ...descriptor, compression }
}

function parseObject(bytes: Uint8Array, what: string): Json {
  let value: unknown
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (cause) {
    throw invalidImage(`The ${what} is not JSON.`, cause)
  }
  return object(value, what)
}

function object(value: unknown, what: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalidImage(`The ${what} is missing or not an object.`)
  return value as Json
}

function array(value: unknown, what: string, max: number): readonly unknown[] {
  if (!Array.isArray(value)) throw invalidImage(`"${what}" is missing or not a list.`)
  if (value.length > max) throw invalidImage(`"${what}" has more than ${max} entries.`)
  return value as readonly unknown[]
}

function text(value: unknown, what: string): string {
  if (value === undefined || value === null) return ''
  if (typeof value !== 'string' || value.includes('\0')) throw invalidImage(`"${what}" is not a text.`)
  return value
}

function strings(value: unknown, what: string): readonly string[] {
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) throw invalidImage(`"${what}" is not a list.`)
  return value.map((item) => text(item, what))
}

function parseEnv(entries: readonly string[]): Readonly<Record<string, string>> {
  const env: [string, string][] = []
  for (const entry of entries) {
    const eq = entry.indexOf('=')
    if (eq === 0) throw invalidImage('The image config has an environment variable without a name.')
    env.push(eq < 0 ? [entry, ''] : [entry.slice(0, eq), entry.slice(eq + 1)])
  }
  return Object.fromEntries(env)
}

function parseLabels(value: unknown): Readonly<Record<string, string>> {
  if (value === undefined || value === null) return {}
  return Object.fromEntries(Object.entries(object(value, 'labels')).map(([key, item]) => [key, text(item, key)]))
}

export function invalidImage(message: string, cause?: unknown): FaasError {
  return new FaasError('image/invalid', { message, cause })
}

export function clip(untrusted: string): string {
  return untrusted.slice(0, 100).replace(/[^\x20-\x7e]/g, '?')
}
