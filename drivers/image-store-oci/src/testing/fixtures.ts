/** A fresh store in a temporary directory, and images to put into it. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import type { LogSink } from '@faas-platform/core'
import { OciImageStore, type OciImageStoreOptions } from '../index.js'
import { tar, type TarMember } from './tar-builder.js'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
export const never = new AbortController().signal

let hostkitIsBuilt = false

/** Builds the helper when its sources are newer, once per test file. */
export function hostkitPath(): string {
  if (!hostkitIsBuilt) execFileSync(join(ROOT, 'scripts/build-agent.sh'), { stdio: ['ignore', 'ignore', 'inherit'] })
  hostkitIsBuilt = true
  return join(ROOT, 'agent/target/release/faas-hostkit')
}

export function toolPath(name: string): string {
  return join(ROOT, '.tools/bin', name)
}

export function temporaryDirectory(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'faas-image-store-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}

export function recordingLog(): LogSink & { readonly lines: string[] } {
  const lines: string[] = []
  const add = (_fields: unknown, message: string): void => void lines.push(message)
  return { lines, debug: add, info: add, warn: add, error: add }
}

export function makeStore(dir: string, options: Partial<OciImageStoreOptions> = {}): OciImageStore {
  return new OciImageStore({ dir, hostkitPath: hostkitPath(), log: recordingLog(), platform: { os: 'linux', architecture: 'amd64' }, ...options })
}

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`
}

export interface TestImage {
  readonly blobs: ReadonlyMap<string, Uint8Array>
  readonly manifest: Buffer
  readonly manifestDigest: string
  readonly layers: readonly { readonly tar: Buffer; readonly blob: Buffer; readonly digest: string; readonly diffId: string }[]
  readonly config: Buffer
}

export interface TestImageOptions {
  readonly compress?: (tar: Buffer) => Buffer
  readonly layerType?: string
  readonly manifestType?: string
  readonly architecture?: string
  readonly config?: Record<string, unknown>
  /** Instead of the true ones. */
  readonly diffIds?: readonly string[]
}

export function image(layers: readonly (readonly TarMember[] | Buffer)[], options: TestImageOptions = {}): TestImage {
  const { compress = (bytes) => gzipSync(bytes), layerType = 'application/vnd.oci.image.layer.v1.tar+gzip', manifestType = 'application/vnd.oci.image.manifest.v1+json' } = options
  const made = layers.map((members) => {
    const bytes = Buffer.isBuffer(members) ? members : tar(members)
    const blob = compress(bytes)
    return { tar: bytes, blob, digest: sha256(blob), diffId: sha256(bytes) }
  })
  const config = Buffer.from(JSON.stringify({
    architecture: options.architecture ?? 'amd64',
    os: 'linux',
    config: options.config ?? { Env: ['PATH=/bin', 'EMPTY='], Cmd: ['/bin/sh'] },
    rootfs: { type: 'layers', diff_ids: options.diffIds ?? made.map(({ diffId }) => diffId) },
  }))
  const configType = manifestType.includes('docker') ? 'application/vnd.docker.container.image.v1+json' : 'application/vnd.oci.image.config.v1+json'
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: manifestType,
    config: { mediaType: configType, digest: sha256(config), size: config.length },
    layers: made.map(({ blob, digest }) => ({ mediaType: layerType, digest, size: blob.length })),
  }))
  const blobs = new Map<string, Uint8Array>([[sha256(config), config], [sha256(manifest), manifest], ...made.map(({ digest, blob }) => [digest, blob] as const)])
  return { blobs, manifest, manifestDigest: sha256(manifest), layers: made, config }
}

/** One descriptor of an index, as a plain object. */
export function descriptorOf(of: TestImage, extra: Record<string, unknown> = {}): Record<string, unknown> {
  const { mediaType } = JSON.parse(of.manifest.toString()) as { mediaType: string }
  return { mediaType, digest: of.manifestDigest, size: of.manifest.length, ...extra }
}

export function index(manifests: readonly Record<string, unknown>[]): Buffer {
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }))
}

/** Writes an OCI image layout with one image, or with the given index. */
export function writeLayout(dir: string, of: TestImage | readonly TestImage[], indexJson: Buffer | string): string {
  mkdirSync(join(dir, 'blobs/sha256'), { recursive: true })
  writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}')
  const images = Array.isArray(of) ? (of as readonly TestImage[]) : [of as TestImage]
  for (const { blobs } of images) for (const [digest, bytes] of blobs) writeFileSync(join(dir, 'blobs/sha256', digest.slice(7)), bytes)
  const [first] = images
  const named = typeof indexJson === 'string' && first !== undefined ? index([descriptorOf(first, { annotations: { 'org.opencontainers.image.ref.name': indexJson } })]) : indexJson
  writeFileSync(join(dir, 'index.json'), named)
  return dir
}

/** Everything a store directory holds besides its fixed skeleton. */
export function leftovers(dir: string): { readonly blobs: string[]; readonly layers: string[]; readonly tmp: string[]; readonly temporaryState: string[] } {
  const list = (path: string): string[] => readdirSync(join(dir, path))
  return { blobs: list('blobs/sha256'), layers: list('layers'), tmp: list('tmp').flatMap((name) => list(join('tmp', name)).map((child) => `${name}/${child}`)), temporaryState: list('.').filter((name) => name.endsWith('.tmp')) }
}
