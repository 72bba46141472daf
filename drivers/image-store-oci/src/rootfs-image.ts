/** Makes a one-layer image of a directory: the same tree and config give the same digest. */
import { createHash } from 'node:crypto'
import { spawn } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError, isImageDigest, type ImageConfig, type ImageDigest } from '@faas-platform/core'
import { digestOf, type BlobTransfer } from './blob-dir.js'
import type { ContentSource } from './content-store.js'
import { isMissing, storeFailure } from './failures.js'
import { hostkitFailure } from './hostkit.js'
import type { StoreLimits } from './limits.js'
import { invalidImage, MEDIA_TYPES } from './manifest.js'
import type { Platform } from './platform.js'
import { reasonOf } from './single-flight.js'

/** Fixed, so that building twice gives one image. */
const CREATED = '1970-01-01T00:00:00Z'
const TEXT_BYTES_MAX = 8192

export interface BuiltImage {
  readonly manifest: { readonly bytes: Uint8Array; readonly mediaType: string }
  readonly source: ContentSource
}

/** @throws FaasError `image/invalid`, `image/too-large`, `store/unavailable` */
export async function buildImage(
  rootfsPath: string,
  options: { readonly config: ImageConfig; readonly platform: Platform; readonly hostkitPath: string; readonly limits: StoreLimits; readonly temporaryDir: string; readonly signal: AbortSignal },
): Promise<BuiltImage> {
  await checkDirectory(rootfsPath)
  const layerPath = join(options.temporaryDir, 'layer.tar')
  const layer = await packLayer(rootfsPath, layerPath, options)
  const config = encode(configFile(options.config, options.platform, layer.digest))
  const manifest = encode({
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.ociManifest,
    config: { mediaType: MEDIA_TYPES.ociConfig, digest: digestOf(config), size: config.length },
    // Not compressed: compressors differ between versions, and with them the digest would.
    layers: [{ mediaType: MEDIA_TYPES.ociLayer, digest: layer.digest, size: layer.size }],
  })
  const source: ContentSource = {
    document: async () => config,
    blob: ({ digest }): BlobTransfer => ({
      open: async (_offset, signal) => ({ offset: 0, bytes: digest === layer.digest ? createReadStream(layerPath, { signal }) : bytesOf(config) }),
      again: async () => false,
    }),
  }
  return { manifest: { bytes: manifest, mediaType: MEDIA_TYPES.ociManifest }, source }
}

async function checkDirectory(path: string): Promise<void> {
  try {
    if ((await stat(path)).isDirectory()) return
  } catch (error) {
    if (!isMissing(error)) throw storeFailure(error, 'reading the root file system')
  }
  throw invalidImage('There is no directory at the path of the root file system.')
}

async function packLayer(
  rootfsPath: string,
  target: string,
  { hostkitPath, limits, signal }: { readonly hostkitPath: string; readonly limits: StoreLimits; readonly signal: AbortSignal },
): Promise<{ digest: ImageDigest; size: number }> {
  signal.throwIfAborted()
  const file = await open(target, 'wx', 0o600)
  try {
    const args = ['pack', '--root', rootfsPath, '--max-bytes', String(limits.layerBytesMax), '--max-entries', String(limits.layerEntriesMax)]
    const child = spawn(hostkitPath, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    const kill = (): void => void child.kill('SIGKILL')
    signal.addEventListener('abort', kill, { once: true })
    try {
      const ended = new Promise<number | Error>((resolve) => {
        child.once('error', resolve)
        child.once('close', (code, name) => resolve(code ?? new Error(`ended by ${name}`)))
      })
      let said = ''
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        if (said.length < TEXT_BYTES_MAX) said += text
      })
      const hash = createHash('sha256')
      let size = 0
      for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
        hash.update(chunk)
        for (let done = 0; done < chunk.length; ) done += (await file.write(chunk, done)).bytesWritten
        size += chunk.length
      }
      const code = await ended
      if (signal.aborted) throw reasonOf(signal)
      if (code !== 0) throw hostkitFailure(code, said)
      const digest = `sha256:${hash.digest('hex')}`
      if (!isImageDigest(digest)) throw new FaasError('internal/bug', { message: 'A hash has an unexpected form.' })
      return { digest, size }
    } finally {
      signal.removeEventListener('abort', kill)
      kill()
    }
  } catch (error) {
    throw storeFailure(error, 'packing the root file system')
  } finally {
    await file.close()
  }
}

function configFile(config: ImageConfig, platform: Platform, diffId: ImageDigest): unknown {
  const { env, entrypoint, cmd, workingDir, user, labels } = config
  return {
    created: CREATED,
    architecture: platform.architecture,
    os: platform.os,
    config: {
      ...(user !== '' && { User: user }),
      Env: Object.entries(env).map(([name, value]) => `${name}=${value}`),
      ...(entrypoint.length > 0 && { Entrypoint: entrypoint }),
      ...(cmd.length > 0 && { Cmd: cmd }),
      WorkingDir: workingDir,
      ...(Object.keys(labels).length > 0 && { Labels: labels }),
    },
    rootfs: { type: 'layers', diff_ids: [diffId] },
    history: [{ created: CREATED, created_by: 'faas image build' }],
  }
}

function encode(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value))
}

async function* bytesOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
