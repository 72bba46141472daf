/**
 * Unpacked layers: `layers/<diffId hex>/fs`, each made once and shared by every image that has it.
 *
 * I1. A layer directory is visible only when it is complete and its diff id was checked (unpack aside, rename).
 * I2. The unpacking itself runs in the helper, locked into its directory; here are only hash and limits.
 */
import { createHash } from 'node:crypto'
import { chmod, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError, type ImageDigest } from '@faas-platform/core'
import { hexOf } from './blob-dir.js'
import { decompress, type Bytes } from './decompress.js'
import { isMissing, storeFailure } from './failures.js'
import { feedHostkit } from './hostkit.js'

export interface LayerInfo {
  readonly entries: number
  /** Of the files in it. */
  readonly bytes: number
  readonly whiteouts: number
  /** Extended attributes that were left out because they would steer overlayfs or the host. */
  readonly skippedXattrs: number
}

export interface UnpackLimits {
  /** Bytes of one layer's tar stream, and of the files in it. */
  readonly layerBytesMax: number
  readonly layerEntriesMax: number
}

export class LayerDir {
  constructor(
    private readonly root: string,
    private readonly hostkitPath: string,
    private readonly limits: UnpackLimits,
  ) {}

  /** What overlayfs takes as a lower directory. */
  path(diffId: ImageDigest): string {
    return join(this.root, hexOf(diffId), 'fs')
  }

  /** Undefined when it is not unpacked. */
  async info(diffId: ImageDigest): Promise<LayerInfo | undefined> {
    try {
      return JSON.parse(await readFile(join(this.root, hexOf(diffId), 'layer.json'), 'utf8')) as LayerInfo
    } catch (error) {
      if (isMissing(error)) return undefined
      if (error instanceof SyntaxError) throw new FaasError('store/corrupt', { message: `An unpacked layer is damaged: ${diffId}.`, cause: error })
      throw storeFailure(error, 'looking for a layer')
    }
  }

  /** @throws FaasError `image/invalid`, `image/too-large`, `image/digest-mismatch`, `store/unavailable`, `runtime/unsupported` */
  async unpack(
    diffId: ImageDigest,
    blob: Bytes,
    options: { readonly temporaryDir: string; readonly signal: AbortSignal; readonly onBytes?: (bytes: number) => void },
  ): Promise<LayerInfo> {
    const temporary = join(options.temporaryDir, `layer-${hexOf(diffId)}`)
    const target = join(temporary, 'fs')
    const args = ['unpack', '--root', target, '--whiteouts', 'overlay', '--max-bytes', String(this.limits.layerBytesMax), '--max-entries', String(this.limits.layerEntriesMax)]
    try {
      await mkdir(target, { recursive: true })
      // Against the umask: a layer that does not mention its root must still let every user of the sandbox in.
      await chmod(target, 0o755)
      const hash = createHash('sha256')
      const report = await feedHostkit(this.hostkitPath, args, this.#counted(decompress(blob, options.signal), hash, options.onBytes), options.signal)
      const actual = `sha256:${hash.digest('hex')}`
      if (actual !== diffId) {
        throw new FaasError('image/digest-mismatch', { message: `A layer unpacks to ${actual}, but the image config announces ${diffId}.`, hint: 'The image is damaged or forged; nothing of this layer was kept.' })
      }
      const info = JSON.parse(report) as LayerInfo
      await writeFile(join(temporary, 'layer.json'), JSON.stringify(info))
      await rename(temporary, join(this.root, hexOf(diffId)))
      return info
    } catch (error) {
      await rm(temporary, { recursive: true, force: true, maxRetries: 5 })
      throw storeFailure(error, 'unpacking a layer')
    }
  }

  async *#counted(source: Bytes, hash: { update(bytes: Uint8Array): unknown }, onBytes?: (bytes: number) => void): Bytes {
    // Headers and padding come on top of the files, so a layer of exactly the limit still fits.
    const bytesMax = this.limits.layerBytesMax + this.limits.layerEntriesMax * 4096
    let total = 0
    for await (const chunk of source) {
      total += chunk.length
      if (total > bytesMax) throw new FaasError('image/too-large', { message: `A layer unpacks to more than the allowed ${this.limits.layerBytesMax} bytes.` })
      hash.update(chunk)
      yield chunk
      onBytes?.(total)
    }
  }
}
