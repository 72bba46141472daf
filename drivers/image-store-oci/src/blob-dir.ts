/**
 * Content-addressed blobs: `blobs/sha256/<hex>`.
 *
 * I1. A blob is visible only when it is complete and its digest and size were checked (write aside, verify, rename).
 * I2. What fails is removed before the error is thrown.
 */
import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { mkdir, open, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { FaasError, MIB, type ImageDigest } from '@faas-platform/core'
import type { Bytes } from './decompress.js'
import { isMissing, storeFailure } from './failures.js'

export interface BlobTransfer {
  /**
   * Opens the content from `offset` on, or from 0 when it can not (the returned `offset` says which).
   * May be called again after a broken stream.
   */
  open(offset: number, signal: AbortSignal): Promise<{ readonly offset: number; readonly bytes: Bytes }>
  /** Is another attempt worth it after this failure? Waits before it says yes. */
  again(error: unknown, progressed: boolean, signal: AbortSignal): Promise<boolean>
}

const SYNC_BYTES_MAX = 4 * MIB

export function hexOf(digest: ImageDigest): string {
  return digest.slice('sha256:'.length)
}

export class BlobDir {
  constructor(private readonly root: string) {}

  path(digest: ImageDigest): string {
    return join(this.root, 'sha256', hexOf(digest))
  }

  async has(digest: ImageDigest): Promise<boolean> {
    try {
      return (await stat(this.path(digest))).isFile()
    } catch (error) {
      if (isMissing(error)) return false
      throw storeFailure(error, 'looking for a blob')
    }
  }

  stream(digest: ImageDigest, signal: AbortSignal): Bytes {
    return createReadStream(this.path(digest), { highWaterMark: 256 * 1024, signal })
  }

  /** Reads a small blob and checks it again. @throws FaasError `store/corrupt` */
  async read(digest: ImageDigest): Promise<Uint8Array> {
    const bytes = await readFile(this.path(digest))
    if (digestOf(bytes) !== digest) throw new FaasError('store/corrupt', { message: `A blob of the image store is damaged: ${digest}.` })
    return bytes
  }

  /** @throws FaasError `image/digest-mismatch`, `store/unavailable` */
  async put(digest: ImageDigest, bytes: Uint8Array, temporaryDir: string): Promise<void> {
    const transfer: BlobTransfer = { open: async () => ({ offset: 0, bytes: once(bytes) }), again: async () => false }
    await this.ingest({ digest, size: bytes.length }, transfer, { temporaryDir, signal: new AbortController().signal })
  }

  /** Copies content in, verified while it streams. @throws FaasError `image/digest-mismatch`, `store/unavailable`, and what the transfer throws */
  async ingest(
    expected: { readonly digest: ImageDigest; readonly size: number },
    transfer: BlobTransfer,
    options: { readonly temporaryDir: string; readonly signal: AbortSignal; readonly onBytes?: (bytes: number) => void },
  ): Promise<void> {
    const temporary = join(options.temporaryDir, `blob-${hexOf(expected.digest)}`)
    try {
      await mkdir(options.temporaryDir, { recursive: true })
      const file = await open(temporary, 'w', 0o600)
      try {
        await receive(file, expected, transfer, options)
        // Layers are flushed by their unpacker; documents are trusted as they lie here.
        if (expected.size <= SYNC_BYTES_MAX) await file.sync()
      } finally {
        await file.close()
      }
      await mkdir(dirname(this.path(expected.digest)), { recursive: true })
      await rename(temporary, this.path(expected.digest))
    } catch (error) {
      await rm(temporary, { force: true }) // I2
      throw storeFailure(error, 'storing a blob')
    }
  }
}

async function receive(
  file: FileHandle,
  expected: { readonly digest: ImageDigest; readonly size: number },
  transfer: BlobTransfer,
  options: { readonly signal: AbortSignal; readonly onBytes?: (bytes: number) => void },
): Promise<void> {
  let hash: Hash = createHash('sha256')
  let position = 0
  for (;;) {
    const before = position
    try {
      options.signal.throwIfAborted()
      const { offset, bytes } = await transfer.open(position, options.signal)
      if (offset !== position) {
        // The other side can not resume: what came so far comes again.
        hash = createHash('sha256')
        position = 0
        await file.truncate(0).catch((error: unknown) => {
          throw storeFailure(error, 'storing a blob')
        })
      }
      for await (const chunk of bytes) {
        options.signal.throwIfAborted()
        if (position + chunk.length > expected.size) throw mismatch(expected.digest, `it is longer than the announced ${expected.size} bytes`)
        hash.update(chunk)
        await writeAll(file, chunk, position)
        position += chunk.length
        options.onBytes?.(position)
      }
      if (position < expected.size) throw new TruncatedError(position, expected.size)
      break
    } catch (error) {
      options.signal.throwIfAborted()
      if (!(await transfer.again(error, position > before, options.signal))) {
        throw error instanceof TruncatedError ? mismatch(expected.digest, `it ends after ${error.received} of ${error.expected} bytes`, error) : error
      }
    }
  }
  const actual = `sha256:${hash.digest('hex')}`
  if (actual !== expected.digest) throw mismatch(expected.digest, `its digest is ${actual}`)
}

/** The stream ended politely, but too early. */
export class TruncatedError extends Error {
  constructor(
    readonly received: number,
    readonly expected: number,
  ) {
    super(`The content ended after ${received} of ${expected} bytes.`)
  }
}

/** A failure of the own disk is told apart from one of the source at once: it must not be tried again. */
async function writeAll(file: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  try {
    for (let done = 0; done < chunk.length; ) {
      const { bytesWritten } = await file.write(chunk, done, chunk.length - done, position + done)
      done += bytesWritten
    }
  } catch (error) {
    throw storeFailure(error, 'storing a blob')
  }
}

async function* once(bytes: Uint8Array): Bytes {
  yield bytes
}

export function digestOf(bytes: Uint8Array): ImageDigest {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}` as ImageDigest
}

export function mismatch(digest: ImageDigest, why: string, cause?: unknown): FaasError {
  return new FaasError('image/digest-mismatch', { message: `Content announced as ${digest} is something else: ${why}.`, hint: 'Nothing of it was kept. Ask again, or distrust the source.', cause })
}
