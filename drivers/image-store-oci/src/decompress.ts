/** Decompression of layers and archives as async generators; damage ends as `image/invalid`. */
import * as zlib from 'node:zlib'
import { pipeline } from 'node:stream/promises'
import { PassThrough, Readable, type Transform } from 'node:stream'
import { Decompress } from 'fzstd'
import { FaasError } from '@faas-platform/core'
import { errnoOf } from './failures.js'
import { invalidImage, type Compression } from './manifest.js'
import { ZstdFrameGuard } from './zstd-frame-guard.js'

export type Bytes = AsyncIterable<Uint8Array>

/** By the first bytes, whatever a name or media type says. */
export function detectCompression(head: Uint8Array): Compression {
  if (head[0] === 0x1f && head[1] === 0x8b) return 'gzip'
  if (head[0] === 0x28 && head[1] === 0xb5 && head[2] === 0x2f && head[3] === 0xfd) return 'zstd'
  return 'none'
}

/** Decompresses what is compressed and passes on what is not. @throws FaasError `image/invalid` while iterating */
export async function* decompress(source: Bytes, signal: AbortSignal): Bytes {
  const iterator = source[Symbol.asyncIterator]()
  const head: Uint8Array[] = []
  let length = 0
  try {
    while (length < MAGIC_BYTES) {
      const next = await iterator.next()
      if (next.done === true) break
      head.push(next.value)
      length += next.value.length
    }
    yield* decoded(rejoin(head, iterator), detectCompression(Buffer.concat(head)), signal)
  } finally {
    await iterator.return?.()
  }
}

async function* rejoin(head: readonly Uint8Array[], rest: AsyncIterator<Uint8Array>): Bytes {
  yield* head
  for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value
}

const MAGIC_BYTES = 4

function decoded(source: Bytes, compression: Compression, signal: AbortSignal): Bytes {
  if (compression === 'none') return source
  if (compression === 'gzip') return through(source, zlib.createGunzip({ chunkSize: CHUNK_BYTES }), signal)
  const native = nativeZstd()
  return native === undefined ? unzstd(source) : through(source, native, signal)
}

const CHUNK_BYTES = 128 * 1024
/** A block of 4 bytes can stand for 128 KiB, so this bounds what one step of the decoder puts out to 32 MiB. */
const ZSTD_STEP_BYTES = 1024

/** Node has its own from 22.15 on; it is ten times faster than the one in JavaScript. */
function nativeZstd(): Transform | undefined {
  const create: unknown = Reflect.get(zlib, 'createZstdDecompress')
  return typeof create === 'function' ? (create as () => Transform)() : undefined
}

async function* through(source: Bytes, stream: Transform, signal: AbortSignal): Bytes {
  let sourceError: unknown
  const input = Readable.from(remember(source, (error) => (sourceError = error)), { objectMode: false, highWaterMark: CHUNK_BYTES })
  const output = new PassThrough({ highWaterMark: 256 * 1024 })
  const done = pipeline(input, stream, output, { signal })
  done.catch(() => {}) // seen below, through the iteration or the await
  try {
    for await (const chunk of output as AsyncIterable<Uint8Array>) yield chunk
    await done
  } catch (error) {
    if (sourceError !== undefined) throw sourceError
    signal.throwIfAborted()
    if (error instanceof FaasError || errnoOf(error) !== undefined) throw error
    throw invalidImage('A compressed stream is damaged or ends too early.', error)
  } finally {
    input.destroy()
    stream.destroy()
    output.destroy()
  }
}

async function* remember(source: Bytes, onError: (error: unknown) => void): Bytes {
  try {
    yield* source
  } catch (error) {
    onError(error)
    throw error
  }
}

async function* unzstd(source: Bytes): Bytes {
  let ready: Uint8Array[] = []
  const guard = new ZstdFrameGuard()
  const decoder = new Decompress((chunk) => void ready.push(chunk))
  const push = (chunk: Uint8Array, last: boolean): void => {
    try {
      decoder.push(chunk, last)
    } catch (error) {
      throw invalidImage('A zstd stream is damaged or ends too early.', error)
    }
  }
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; at += ZSTD_STEP_BYTES) {
      const step = chunk.subarray(at, at + ZSTD_STEP_BYTES)
      guard.push(step)
      push(step, false)
      const batch = ready
      ready = []
      yield* batch
    }
  }
  guard.end()
  push(new Uint8Array(0), true)
  yield* ready
}
