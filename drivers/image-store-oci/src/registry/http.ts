/**
 * HTTP as registries need it: redirects under control, silence bounded, http only where it was allowed.
 *
 * I1. `authorization` goes to the origin it was meant for and to no other, whatever redirects say.
 * I2. Plain http is used only towards loopback and registries that were configured as insecure, and never
 *     on the word of a server that was reached otherwise.
 * I3. Every wait ends: by the caller's signal, or after `idleTimeoutMs` without a byte.
 */
import { FaasError } from '@faas-platform/core'
import type { Bytes } from '../decompress.js'
import { reasonOf } from '../single-flight.js'

export interface HttpOptions {
  /** `host[:port]` of registries that may be spoken to without TLS. */
  readonly insecureRegistries: ReadonlySet<string>
  readonly idleTimeoutMs: number
  /** Asked before every connection, redirects and token services included. @throws FaasError `image/registry-refused` */
  readonly checkHost: (host: string) => Promise<void>
}

export interface HttpResponse {
  readonly url: URL
  readonly status: number
  readonly headers: Headers
  /** To be read to its end, or given back. */
  readonly body: Bytes
  discard(): Promise<void>
}

/** Worth another attempt. Becomes `image/pull-failed` when there are no more. */
export class TransientError extends Error {
  constructor(
    message: string,
    readonly retryAfterMs: number | undefined,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause })
  }
}

const REDIRECTS_MAX = 5
const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308])

/** @throws TransientError, FaasError `image/pull-failed`, the signal's reason */
export async function request(url: URL, init: { readonly method?: 'GET' | 'POST'; readonly headers: Readonly<Record<string, string>>; readonly body?: string }, signal: AbortSignal, options: HttpOptions): Promise<HttpResponse> {
  let target = url
  let { headers } = init
  checkScheme(target, undefined, options)
  await options.checkHost(target.host)
  for (let hop = 0; hop <= REDIRECTS_MAX; hop++) {
    const response = await once(target, { ...init, headers }, signal, options)
    const location = response.headers.get('location')
    if (!REDIRECT_STATUS.has(response.status) || location === null) return response
    await response.discard()
    if (init.method === 'POST') throw pullFailed('A registry answered a request for a token with a redirect, which is not followed.')
    const next = parseLocation(location, target)
    checkScheme(next, target, options)
    if (next.host !== target.host) await options.checkHost(next.host)
    if (next.origin !== target.origin) headers = withoutAuthorization(headers) // I1
    target = next
  }
  throw pullFailed(`The registry redirected more than ${REDIRECTS_MAX} times.`)
}

/** Reads a small body whole. @throws FaasError when it is larger than `bytesMax`, made by `tooLarge` */
export async function readBounded(response: HttpResponse, bytesMax: number, tooLarge: () => FaasError): Promise<Uint8Array> {
  if (Number(response.headers.get('content-length') ?? 0) > bytesMax) {
    await response.discard()
    throw tooLarge()
  }
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body) {
    length += chunk.length
    if (length > bytesMax) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

export function mayUseHttp(host: string, insecureRegistries: ReadonlySet<string>): boolean {
  const name = new URL(`http://${host}`).hostname
  return insecureRegistries.has(host) || name === 'localhost' || name === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(name)
}

async function once(url: URL, init: { readonly method?: string; readonly headers: Readonly<Record<string, string>>; readonly body?: string }, signal: AbortSignal, { idleTimeoutMs }: HttpOptions): Promise<HttpResponse> {
  signal.throwIfAborted()
  const silence = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const alive = (): void => {
    clearTimeout(timer)
    timer = setTimeout(() => silence.abort(), idleTimeoutMs)
  }
  const explain = (error: unknown): unknown => {
    clearTimeout(timer)
    if (signal.aborted) return reasonOf(signal)
    if (silence.signal.aborted) return new TransientError(`${url.host} sent nothing for ${idleTimeoutMs} ms`, undefined)
    return new TransientError(`the connection to ${url.host} failed`, undefined, error)
  }
  alive()
  let response: Response
  try {
    response = await fetch(url, {
      method: init.method ?? 'GET',
      headers: { ...init.headers, 'user-agent': 'faas-platform', 'accept-encoding': 'identity' },
      redirect: 'manual',
      signal: AbortSignal.any([signal, silence.signal]),
      ...(init.body !== undefined && { body: init.body }),
    })
  } catch (error) {
    throw explain(error)
  }
  return {
    url,
    status: response.status,
    headers: response.headers,
    body: watched(response.body, alive, () => clearTimeout(timer), explain),
    async discard() {
      clearTimeout(timer)
      silence.abort() // closes the connection: reading on could take for ever
      await response.body?.cancel().catch(() => {}) // it was aborted just now
    },
  }
}

async function* watched(body: ReadableStream<Uint8Array> | null, alive: () => void, done: () => void, explain: (error: unknown) => unknown): Bytes {
  try {
    if (body === null) return
    const reader = body.getReader()
    try {
      for (;;) {
        alive()
        let result: Awaited<ReturnType<typeof reader.read>>
        try {
          result = await reader.read()
        } catch (error) {
          throw explain(error)
        }
        if (result.done) return
        // The consumer's time is not the server's silence.
        done()
        yield result.value
      }
    } finally {
      // Harmless after the end; otherwise it closes the connection.
      await reader.cancel().catch(() => {})
    }
  } finally {
    done()
  }
}

function checkScheme(url: URL, from: URL | undefined, { insecureRegistries }: HttpOptions): void {
  if (url.protocol === 'https:') return
  const allowed = url.protocol === 'http:' && mayUseHttp(url.host, insecureRegistries) && (from === undefined || from.protocol === 'http:') // I2
  if (allowed) return
  throw new FaasError('image/pull-failed', {
    message: `The registry ${url.host} would have to be spoken to without TLS, which is not allowed.`,
    hint: 'List it among the insecure registries if you trust the network to it.',
  })
}

function parseLocation(location: string, base: URL): URL {
  try {
    return new URL(location, base)
  } catch (cause) {
    throw new FaasError('image/pull-failed', { message: 'The registry redirected to something that is not an address.', cause })
  }
}

function withoutAuthorization(headers: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'authorization'))
}

export function pullFailed(message: string, cause?: unknown): FaasError {
  return new FaasError('image/pull-failed', { message, cause })
}
