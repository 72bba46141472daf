/** Runs one command of the host helper with a byte stream as its input, or its output. */
import { spawn } from 'node:child_process'
import { FaasError } from '@faas-platform/core'
import type { Bytes } from './decompress.js'
import { clip } from './manifest.js'
import { diskFull } from './failures.js'
import { reasonOf } from './single-flight.js'

const TEXT_BYTES_MAX = 8192

/**
 * Feeds `input` to the command and returns what it printed.
 * The input's own failure wins over the command's, which is then only a consequence.
 */
export async function feedHostkit(path: string, args: readonly string[], input: Bytes, signal: AbortSignal): Promise<string> {
  signal.throwIfAborted()
  const child = spawn(path, args, { stdio: ['pipe', 'pipe', 'pipe'] })
  const stdout = collect(child.stdout)
  const stderr = collect(child.stderr)
  const ended = new Promise<number | Error>((resolve) => {
    child.once('error', resolve)
    child.once('close', (code, signalName) => resolve(code ?? new Error(`ended by ${signalName}`)))
  })
  const kill = (): void => void child.kill('SIGKILL')
  signal.addEventListener('abort', kill, { once: true })
  // EPIPE and the like: the command ended early, and its exit says why.
  let broken = false
  child.stdin.on('error', () => (broken = true))
  child.stdin.on('close', () => (broken = true))
  let failure: unknown
  try {
    for await (const chunk of input) {
      if (broken) break
      if (!child.stdin.write(chunk)) await drained(child.stdin)
    }
    child.stdin.end()
  } catch (error) {
    failure = error
    kill()
  }
  const code = await ended
  signal.removeEventListener('abort', kill)
  if (failure !== undefined) throw failure
  if (signal.aborted) throw reasonOf(signal)
  if (code !== 0) throw hostkitFailure(code, stderr())
  return stdout()
}

/** Exit codes as `agent/src/hostkit/unpack.rs` documents them. */
export function hostkitFailure(code: number | Error, text: string): FaasError {
  const said = clip(text.trim())
  switch (code) {
    case 3:
      return new FaasError('image/invalid', { message: `The image is refused: ${said}.`, cause: new Error(text) })
    case 4:
      return new FaasError('image/too-large', { message: `The image is too large: ${said}.` })
    case 5:
      return diskFull('unpacking a layer')
    case 6:
      return new FaasError('runtime/unsupported', { message: `This host can not unpack images: ${said}.`, hint: 'Run the platform as root.' })
    default:
      return new FaasError('store/unavailable', { message: 'The helper that unpacks layers failed.', cause: code instanceof Error ? code : new Error(`exit ${code}: ${text}`) })
  }
}

function collect(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = []
  let length = 0
  stream.on('data', (chunk: Buffer) => {
    if (length < TEXT_BYTES_MAX) chunks.push(chunk)
    length += chunk.length
  })
  return () => Buffer.concat(chunks).toString('utf8', 0, TEXT_BYTES_MAX)
}

/** Resolves when more may be written, or when nothing ever will be. */
function drained(stream: NodeJS.WritableStream & { readonly destroyed?: boolean }): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      for (const event of ['drain', 'error', 'close']) stream.removeListener(event, done)
      resolve()
    }
    for (const event of ['drain', 'error', 'close']) stream.once(event, done)
    if (stream.destroyed === true) done()
  })
}
