/**
 * A small client of the Docker Engine API on its unix socket.
 *
 * Own code and not a client library: the driver needs fifteen calls, and of each it needs what the common libraries
 * leave open: bounded bodies, an abort signal and a deadline on every wait, and the raw stream of an attach.
 *
 * I1. Every call ends: by an answer, by its deadline, or by its signal (then with the signal's reason).
 * I2. No body is read past its limit.
 * I3. Only GET and HEAD are repeated, once, and only when a kept-alive connection turned out to be dead.
 */
import http from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import { EngineError } from './engine-error.js'

const DEADLINE_MS_DEFAULT = 30_000
const BODY_BYTES_MAX = 32 * 1024 * 1024
const ERROR_BODY_BYTES_MAX = 64 * 1024
/** Connections for plain calls; streams and attaches have their own. The engine serialises most of the work anyway. */
const SOCKETS_MAX = 16

export type Query = Readonly<Record<string, string | number | boolean | undefined>>

export interface EngineCall {
  readonly method?: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'DELETE'
  /** Without the version prefix. Variable parts must be encoded by the caller: see `segment`. */
  readonly path: string
  readonly query?: Query
  /** Without the version prefix even when one was agreed. */
  readonly unversioned?: boolean
  readonly headers?: Readonly<Record<string, string>>
  readonly json?: unknown
  readonly body?: Readable
  readonly signal?: AbortSignal
  /** Until the whole answer is here; for a stream until its first byte. */
  readonly deadlineMs?: number
}

export interface EngineClientOptions {
  readonly socketPath: string
}

/** A path segment from untrusted text. */
export function segment(text: string): string {
  return encodeURIComponent(text)
}

export class EngineClient {
  readonly socketPath: string
  readonly #agent: http.Agent
  #version = ''

  constructor(options: EngineClientOptions) {
    this.socketPath = options.socketPath
    this.#agent = new http.Agent({ keepAlive: true, maxSockets: SOCKETS_MAX, maxFreeSockets: 4 })
  }

  /** Calls go to `/v<version>/…` from now on. */
  useVersion(version: string): void {
    this.#version = version
  }

  /** As agreed; empty before. */
  get version(): string {
    return this.#version
  }

  /** The answer's JSON, or undefined when it has no body. @throws EngineError */
  async json(call: EngineCall): Promise<unknown> {
    const { method = 'GET' } = call
    try {
      return await this.#json(call, this.#agent)
    } catch (error) {
      const repeatable = method === 'GET' || method === 'HEAD'
      if (!repeatable || !(error instanceof StaleConnection)) throw unwrap(error)
      return await this.#json(call, false).catch((again: unknown) => Promise.reject(unwrap(again))) // I3
    }
  }

  /** The answer's body as a stream, once its status is known to be good. The reader must consume or destroy it. */
  async stream(call: EngineCall): Promise<http.IncomingMessage> {
    try {
      return await this.#open(call, false)
    } catch (error) {
      throw unwrap(error)
    }
  }

  /** Takes over the connection of an attach: raw bytes both ways from the first one on. */
  async hijack(call: EngineCall): Promise<Duplex> {
    try {
      return await this.#hijack(call)
    } catch (error) {
      throw unwrap(error)
    }
  }

  close(): void {
    this.#agent.destroy()
  }

  async #json(call: EngineCall, agent: http.Agent | false): Promise<unknown> {
    const { signal, deadlineMs = DEADLINE_MS_DEFAULT } = call
    const startedAt = performance.now()
    const reply = await this.#open(call, agent)
    const left = Math.max(1, deadlineMs - (performance.now() - startedAt))
    const text = await readBounded(reply, BODY_BYTES_MAX, left, signal)
    if (text === '' || call.method === 'HEAD') return undefined
    return parseJson(text)
  }

  /** Sends the request and waits for the head of a good answer. */
  async #open(call: EngineCall, agent: http.Agent | false): Promise<http.IncomingMessage> {
    const reply = await this.#send<http.IncomingMessage>(call, agent, (request, settle) => {
      request.once('response', (response) => {
        settle(response)
      })
    })
    const status = reply.statusCode ?? 0
    if (status >= 200 && status < 300) return reply
    if (status === 304) {
      reply.resume() // "already started", "already stopped": the wanted state
      return reply
    }
    throw await statusError(reply, call)
  }

  async #hijack(call: EngineCall): Promise<Duplex> {
    const headers = { ...call.headers, Connection: 'Upgrade', Upgrade: 'tcp' }
    const opened = await this.#send<Duplex | http.IncomingMessage>({ ...call, headers }, false, (request, settle) => {
      request.once('upgrade', (_response, socket, head: Buffer) => {
        if (head.length > 0) socket.unshift(head)
        settle(socket)
      })
      request.once('response', (response) => {
        settle(response)
      })
    })
    if (!(opened instanceof http.IncomingMessage)) return opened
    if ((opened.statusCode ?? 0) >= 400) throw await statusError(opened, call)
    opened.destroy()
    throw new EngineError('protocol', 'The engine did not hand over the connection of an attach.', opened.statusCode ?? null)
  }

  #send<T>(call: EngineCall, agent: http.Agent | false, listen: (request: http.ClientRequest, settle: (value: T) => void) => void): Promise<T> {
    const { signal, deadlineMs = DEADLINE_MS_DEFAULT } = call
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error)
    const payload = call.json === undefined ? undefined : Buffer.from(JSON.stringify(call.json))
    const request = http.request({
      socketPath: this.socketPath,
      agent,
      method: call.method ?? 'GET',
      path: (this.#version === '' || call.unversioned === true ? '' : `/v${this.#version}`) + call.path + queryText(call.query),
      headers: {
        Host: 'docker',
        ...(payload === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': String(payload.length) }),
        ...(call.method === 'POST' && payload === undefined && call.body === undefined ? { 'Content-Length': '0' } : {}),
        ...call.headers,
      },
    })
    return new Promise<T>((resolve, reject) => {
      const finish = (): void => {
        clearTimeout(timer)
        signal?.removeEventListener('abort', onAbort)
      }
      const fail = (error: unknown): void => {
        finish()
        reject(error)
        request.destroy()
      }
      const onAbort = (): void => {
        fail(signal?.reason)
      }
      const timer = setTimeout(() => {
        fail(new EngineError('timeout', `The engine did not answer within ${deadlineMs} ms.`))
      }, deadlineMs)
      signal?.addEventListener('abort', onAbort, { once: true })
      request.on('error', (error: NodeJS.ErrnoException) => {
        const wrapped = new EngineError('unreachable', `The connection to the engine failed: ${error.code ?? error.message}.`, null, error)
        fail(request.reusedSocket && agent !== false ? new StaleConnection(wrapped) : wrapped)
      })
      listen(request, (value) => {
        finish()
        resolve(value)
      })
      if (call.body === undefined) {
        request.end(payload)
      } else {
        call.body.once('error', fail)
        call.body.pipe(request)
      }
    })
  }
}

/** A kept-alive connection that the engine had closed meanwhile. */
class StaleConnection extends Error {
  constructor(readonly original: EngineError) {
    super(original.message)
  }
}

function unwrap(thrown: unknown): unknown {
  return thrown instanceof StaleConnection ? thrown.original : thrown
}

function queryText(query: Query | undefined): string {
  if (query === undefined) return ''
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) search.set(name, value === true ? '1' : value === false ? '0' : String(value))
  }
  const text = search.toString()
  return text === '' ? '' : `?${text}`
}

async function statusError(reply: http.IncomingMessage, call: EngineCall): Promise<EngineError> {
  const status = reply.statusCode ?? null
  const text = await readBounded(reply, ERROR_BODY_BYTES_MAX, 5_000, call.signal).catch((error: unknown) =>
    error instanceof EngineError ? '' : Promise.reject(error),
  )
  return new EngineError('status', messageOf(text) ?? `The engine answered ${String(status)} without a reason.`, status)
}

/** The engine's `{"message": …}`, or the plain text that some of its proxies send. */
function messageOf(text: string): string | undefined {
  const trimmed = text.trim()
  if (trimmed === '') return undefined
  let body: unknown
  try {
    body = JSON.parse(trimmed)
  } catch (error) {
    if (error instanceof SyntaxError) return trimmed.slice(0, 500)
    throw error
  }
  if (typeof body === 'object' && body !== null && 'message' in body && typeof body.message === 'string') return body.message
  return trimmed.slice(0, 500)
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new EngineError('protocol', 'The engine answered with something that is not JSON.', null, error)
  }
}

/** Reads a whole body as UTF-8, up to `bytesMax` and for at most `deadlineMs`. I1, I2. */
function readBounded(reply: http.IncomingMessage, bytesMax: number, deadlineMs: number, signal: AbortSignal | undefined): Promise<string> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let size = 0
    const finish = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
    const fail = (error: unknown): void => {
      finish()
      reject(error)
      reply.destroy()
    }
    const onAbort = (): void => {
      fail(signal?.reason)
    }
    const timer = setTimeout(() => {
      fail(new EngineError('timeout', `The engine's answer was not complete within ${Math.round(deadlineMs)} ms.`))
    }, deadlineMs)
    signal?.addEventListener('abort', onAbort, { once: true })
    reply.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > bytesMax) fail(new EngineError('protocol', `The engine's answer is larger than ${bytesMax} bytes.`))
      else chunks.push(chunk)
    })
    reply.once('end', () => {
      finish()
      resolve(Buffer.concat(chunks).toString('utf8'))
    })
    reply.once('error', (error) => {
      fail(new EngineError('unreachable', 'The engine broke off its answer.', null, error))
    })
    reply.once('close', () => {
      if (!reply.readableEnded) fail(new EngineError('unreachable', 'The engine broke off its answer.'))
    })
  })
}
