/**
 * A root file system directory as one layer.
 *
 * I1. The same tree gives the same bytes: entries are sorted, owners and times come from the files alone.
 * I2. Device nodes are refused; sockets, which can not be packed, are left out. Links are packed as links, never followed.
 * Extended attributes are not packed: Node has no call to read them.
 */
import { createHash } from 'node:crypto'
import { createReadStream, createWriteStream } from 'node:fs'
import { lstat, readdir, readlink } from 'node:fs/promises'
import path from 'node:path'
import { PassThrough, Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { FaasError, type ImageConfig } from '@faas-platform/core'
import tar from 'tar-stream'

const PATH_BYTES_MAX = 4096

export interface LayerFile {
  readonly sizeBytes: number
  /** Hex of the SHA-256 of the uncompressed tar: the layer's diff id. */
  readonly sha256: string
}

/** Writes the tree under `rootfs` as a tar file. @throws FaasError `image/invalid` */
export async function writeRootfsLayer(rootfs: string, file: string, signal: AbortSignal): Promise<LayerFile> {
  const pack = tar.pack()
  const hash = createHash('sha256')
  let sizeBytes = 0
  const meter = new PassThrough()
  meter.on('data', (chunk: Buffer) => {
    hash.update(chunk)
    sizeBytes += chunk.length
  })
  const writing = pipeline(pack as unknown as Readable, meter, createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal })
  const packing = packTree(pack, rootfs, signal).catch((error: unknown) => {
    pack.destroy(error instanceof Error ? error : new FaasError('image/invalid', { message: 'The tree can not be packed.', cause: error }))
    throw error
  })
  await Promise.all([packing, writing])
  return { sizeBytes, sha256: hash.digest('hex') }
}

async function packTree(pack: tar.Pack, rootfs: string, signal: AbortSignal): Promise<void> {
  const hardLinks = new Map<string, string>()
  const visit = async (relative: string): Promise<void> => {
    signal.throwIfAborted()
    const full = path.join(rootfs, relative)
    const info = await lstat(full)
    if (Buffer.byteLength(relative) > PATH_BYTES_MAX) throw new FaasError('image/invalid', { message: 'A path in the root file system is too long.' })
    const header = { name: relative === '' ? './' : relative, uid: info.uid, gid: info.gid, mode: info.mode & 0o7777, mtime: new Date(Math.floor(info.mtimeMs / 1000) * 1000) }
    if (info.isDirectory()) {
      if (relative !== '') pack.entry({ ...header, name: `${relative}/`, type: 'directory' })
      const names = await readdir(full)
      for (const name of names.sort()) await visit(relative === '' ? name : `${relative}/${name}`) // I1
    } else if (info.isSymbolicLink()) {
      pack.entry({ ...header, type: 'symlink', linkname: await readlink(full) })
    } else if (info.isFile()) {
      const inode = `${info.dev}:${info.ino}`
      const first = hardLinks.get(inode)
      if (info.nlink > 1 && first !== undefined) {
        pack.entry({ ...header, type: 'link', linkname: first })
        return
      }
      hardLinks.set(inode, relative)
      const entry = pack.entry({ ...header, type: 'file', size: info.size })
      // Not a byte more than the header says, even when the file grows meanwhile.
      await pipeline(info.size === 0 ? Readable.from([]) : createReadStream(full, { end: info.size - 1 }), entry, { signal })
    } else if (info.isFIFO()) {
      pack.entry({ ...header, type: 'fifo' })
    } else if (!info.isSocket()) {
      throw new FaasError('image/invalid', { message: 'The root file system holds a device node.', details: { path: `/${relative}` } }) // I2
    }
  }
  await visit('')
  pack.finalize()
}

/** The OCI image configuration of a one-layer image. Dated at the epoch, so that equal content has an equal digest. */
export function imageConfigJson(config: ImageConfig, diffId: string, platform: { readonly os: string; readonly architecture: string }): string {
  const epoch = '1970-01-01T00:00:00Z'
  return JSON.stringify({
    created: epoch,
    architecture: platform.architecture,
    os: platform.os,
    config: {
      Env: Object.entries(config.env).map(([name, value]) => `${name}=${value}`),
      ...(config.entrypoint.length > 0 ? { Entrypoint: config.entrypoint } : {}),
      ...(config.cmd.length > 0 ? { Cmd: config.cmd } : {}),
      ...(config.user === '' ? {} : { User: config.user }),
      ...(config.workingDir === '' ? {} : { WorkingDir: config.workingDir }),
      ...(Object.keys(config.labels).length > 0 ? { Labels: config.labels } : {}),
    },
    rootfs: { type: 'layers', diff_ids: [`sha256:${diffId}`] },
    history: [{ created: epoch, created_by: 'faas image build' }],
  })
}
