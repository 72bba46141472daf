/** The verbs that every part of the client shares. */
import { FaaSConnectionError, FaaSResponseError } from './errors.js'
import { toStreamEvent } from './events.js'
import { lines, type ServerSentEvent, serverSentEvents } from './sse.js'
import type { Transport, TransportCall } from './transport.js'
import type { CallOptions, StreamEvent } from './types.js'

/** Head start of the client's own deadline over the command's, so that the gateway's 504 arrives and not a guess. */
export const DEADLINE_GRACE_MS = 15_000

export class Caller {
  constructor(readonly transport: Transport, private readonly timeoutMs: number) {}

  get(path: string, options: CallOptions): Promise<unknown> {
    return this.transport.json({ method: 'GET', path, timeoutMs: options.timeoutMs ?? this.timeoutMs, signal: options.signal, repeatable: true })
  }

  post(path: string, body: unknown, options: CallOptions): Promise<unknown> {
    return this.transport.json({ method: 'POST', path, body, timeoutMs: (options.timeoutMs ?? this.timeoutMs) + DEADLINE_GRACE_MS, signal: options.signal, repeatable: false })
  }

  async delete(path: string, options: CallOptions): Promise<void> {
    await this.transport.json({ method: 'DELETE', path, timeoutMs: options.timeoutMs ?? this.timeoutMs, signal: options.signal, repeatable: false })
  }

  async text(path: string, options: CallOptions): Promise<{ readonly text: string; readonly headers: Headers }> {
    const call: TransportCall = { method: 'GET', path, accept: 'text/plain', timeoutMs: options.timeoutMs ?? this.timeoutMs, signal: options.signal, repeatable: true }
    const { response, close } = await this.transport.open(call)
    try {
      return { text: await response.text(), headers: response.headers }
    } catch (thrown) {
      throw this.transport.translate(thrown, call)
    } finally {
      close()
    }
  }

  /** Lines of a body that ends when there are no more. */
  async *lines(path: string, options: CallOptions): AsyncGenerator<string, void, undefined> {
    const call = streamCall('GET', path, options)
    const { response, close } = await this.transport.open(call)
    try {
      yield* lines(bodyOf(response))
    } catch (thrown) {
      throw this.transport.translate(thrown, call)
    } finally {
      close()
    }
  }

  async *messages(call: TransportCall): AsyncGenerator<ServerSentEvent, void, undefined> {
    const { response, close } = await this.transport.open(call)
    try {
      if (response.status === 204) return // the caller has seen everything there is
      yield* serverSentEvents(bodyOf(response))
      throw new FaaSConnectionError('The stream was cut before its end.', { code: 'client/connection-failed', status: response.status })
    } catch (thrown) {
      throw this.transport.translate(thrown, call)
    } finally {
      close()
    }
  }

  /** Events of an execution up to and including its end. @throws FaaSConnectionError when the stream was cut before */
  async *events(call: TransportCall, asked?: string): AsyncGenerator<StreamEvent, void, undefined> {
    for await (const message of this.messages(call)) {
      const event = toStreamEvent(message.event, message.data, asked)
      if (event === undefined) continue
      yield event
      if (event.type === 'end') return
    }
  }
}

/** A call whose answer comes bit by bit and has no deadline of its own. */
export function streamCall(method: 'GET' | 'POST', path: string, options: CallOptions, body?: unknown): TransportCall {
  return { method, path, body, accept: 'text/event-stream', timeoutMs: options.timeoutMs ?? Number.POSITIVE_INFINITY, signal: options.signal, repeatable: true }
}

function bodyOf(response: Response): ReadableStream<Uint8Array> {
  if (response.body === null) throw new FaaSResponseError('The gateway answered without a body.', { code: 'client/invalid-response', status: response.status })
  return response.body
}
