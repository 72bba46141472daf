/**
 * One place that talks HTTP.
 *
 * I1. A call is repeated only when that is safe: it is a read, or it carries an idempotency key that the gateway honours.
 * I2. The caller's signal and the deadline end the request itself, not only the waiting.
 */
import { errorFromResponse } from './error-from-response.js'
import { FaaSApiError, FaaSConnectionError, FaaSError, FaaSResponseError } from './errors.js'

export interface TransportOptions {
  readonly baseUrl: string
  readonly apiKey: string
  /** Attempts in all, ≥ 1. */
  readonly attempts: number
  readonly fetch: typeof globalThis.fetch
  readonly onRetry: (info: { readonly attempt: number; readonly error: FaaSError }) => void
}

export interface TransportCall {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
  /** May it be sent again after a failure? */
  readonly repeatable: boolean
  readonly accept?: string
}

/** After these the same call may succeed: the gateway drains, was stopped, or its store or a sandbox was too slow. */
const TRANSIENT_CODES = new Set(['admission/draining', 'execution/interrupted', 'sandbox/create-timeout', 'store/unavailable'])
/** Of an intermediary whose back end is away: such an answer carries no code of ours. */
const TRANSIENT_STATUSES = new Set(['http/502', 'http/503', 'http/504'])
const BACKOFF_MS = 200
const BACKOFF_MS_MAX = 5_000

export class Transport {
  constructor(readonly options: TransportOptions) {}

  /** @returns the parsed JSON body; `undefined` for an empty one. */
  async json(call: TransportCall): Promise<unknown> {
    return this.#withRetries(call, async () => {
      const { response, done } = await this.#send(call)
      try {
        const text = await this.#readText(response, call)
        if (text === '') return undefined
        try {
          return JSON.parse(text) as unknown
        } catch (cause) {
          throw new FaaSResponseError('The gateway answered with something that is not JSON.', { code: 'client/invalid-response', status: response.status, cause })
        }
      } finally {
        done()
      }
    })
  }

  /** An open response for streaming. Retried only until its headers arrive. `close` ends it. */
  async open(call: TransportCall): Promise<{ readonly response: Response; readonly close: () => void }> {
    return this.#withRetries(call, async () => {
      const { response, done, abort } = await this.#send(call)
      return {
        response,
        close: () => {
          done()
          abort()
        },
      }
    })
  }

  async #withRetries<T>(call: TransportCall, attemptOnce: () => Promise<T>): Promise<T> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await attemptOnce()
      } catch (thrown) {
        if (!(thrown instanceof FaaSError)) throw thrown
        const transient = isTransient(thrown)
        const again = call.repeatable && transient && attempt + 1 < this.options.attempts && call.signal?.aborted !== true
        if (transient) this.options.onRetry({ attempt, error: thrown })
        if (!again) throw thrown
        await pause(Math.max(thrown.retryAfterMs ?? 0, backoffMs(attempt)), call.signal)
      }
    }
  }

  async #send(call: TransportCall): Promise<{ response: Response; done: () => void; abort: () => void }> {
    call.signal?.throwIfAborted()
    const controller = new AbortController()
    const onAbort = (): void => controller.abort(call.signal?.reason)
    call.signal?.addEventListener('abort', onAbort, { once: true })
    const timer = Number.isFinite(call.timeoutMs)
      ? setTimeout(() => controller.abort(new FaaSConnectionError(`No answer within ${call.timeoutMs} ms.`, { code: 'client/connection-failed', status: 0 })), call.timeoutMs)
      : undefined
    const done = (): void => {
      clearTimeout(timer)
      call.signal?.removeEventListener('abort', onAbort)
    }
    try {
      const headers: Record<string, string> = { accept: call.accept ?? 'application/json', ...call.headers }
      if (this.options.apiKey !== '') headers['authorization'] = `Bearer ${this.options.apiKey}`
      if (call.body !== undefined) headers['content-type'] = 'application/json'
      const response = await this.options.fetch(new URL(call.path, this.options.baseUrl), {
        method: call.method,
        headers,
        signal: controller.signal,
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
      })
      if (!response.ok) throw errorFromResponse(response.status, await response.text(), response.headers)
      return { response, done, abort: () => controller.abort() }
    } catch (thrown) {
      done()
      throw this.translate(thrown, call, controller.signal)
    }
  }

  async #readText(response: Response, call: TransportCall): Promise<string> {
    try {
      return await response.text()
    } catch (thrown) {
      throw this.translate(thrown, call)
    }
  }

  /** What a failed read of an open response means to the caller. */
  translate(thrown: unknown, call: TransportCall, signal?: AbortSignal): unknown {
    if (thrown instanceof FaaSError) return thrown
    if (call.signal?.aborted === true) return call.signal.reason
    if (signal?.reason instanceof FaaSError) return signal.reason
    return new FaaSConnectionError(`The gateway at ${this.options.baseUrl} can not be reached.`, {
      code: 'client/connection-failed',
      status: 0,
      hint: 'Is it running? `faas gateway` starts one; `faas doctor` looks at it.',
      cause: thrown,
    })
  }
}

/** Doubling, with jitter. */
export function backoffMs(attempt: number): number {
  return Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** attempt) * (0.5 + Math.random() / 2)
}

function isTransient(error: FaaSError): boolean {
  if (error instanceof FaaSConnectionError) return true
  return error instanceof FaaSApiError && (error.status === 429 || TRANSIENT_CODES.has(error.code) || TRANSIENT_STATUSES.has(error.code))
}

/** @throws the signal's reason */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal?.reason as unknown)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
