/**
 * One server-sent event stream to one client.
 *
 * I1. A slow client slows the source: `event` resolves when the socket took the bytes, and rejects when the client is gone.
 * I2. A quiet stream says every `HEARTBEAT_MS` that it lives, so that neither end nor a proxy takes it for dead.
 */
import type { ServerResponse } from 'node:http'
import type { ExecutionEvent, ExecutionResult } from '@faas-platform/core'
import { FaasError } from '@faas-platform/core'
import { errorBody, sseFrame, wireEvent } from '@faas-platform/protocol'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { GatewayContext } from './context.js'
import { errorOf } from './errors.js'

const HEARTBEAT_MS = 15_000

interface EventStreamOptions {
  /** `none`: the content is not server-sent events and has no place for one. */
  readonly heartbeat?: 'comment' | 'none'
}

export class EventStream {
  readonly #out: ServerResponse
  #started = false
  #heartbeat: NodeJS.Timeout | undefined
  #ended = false

  constructor(private readonly gateway: GatewayContext, private readonly request: FastifyRequest, private readonly reply: FastifyReply, private readonly options: EventStreamOptions = {}) {
    this.#out = reply.raw
  }

  get started(): boolean {
    return this.#started
  }

  /** Sends the head: from here on an error can only be an event. */
  start(): void {
    if (this.started) return
    if (this.gateway.counters.streams >= this.gateway.config.streamsMax) {
      throw new FaasError('admission/queue-full', { message: 'Too many event streams are open.', details: { retryAfterMs: 1000 } })
    }
    this.#started = true
    this.gateway.counters.streams++
    // Fastify answers for a hijacked reply no more: its headers are sent here, its hooks do not run.
    this.reply.hijack()
    for (const [name, value] of Object.entries(this.reply.getHeaders())) if (value !== undefined) this.#out.setHeader(name, value)
    this.#out.writeHead(200, { 'content-type': 'text/event-stream; charset=utf-8', 'x-accel-buffering': 'no' })
    this.#out.flushHeaders()
    if (this.options.heartbeat !== 'none') this.#heartbeat = setInterval(() => this.#out.write(': alive\n\n'), HEARTBEAT_MS) // I2
  }

  async event(event: ExecutionEvent): Promise<void> {
    this.start()
    if (event.type === 'end') this.#ended = true
    await this.send(sseFrame(event.type, wireEvent(event), event.seq))
  }

  async ensureEnd(result: ExecutionResult): Promise<void> {
    if (this.#ended || this.#out.destroyed) return
    this.start()
    await this.send(sseFrame('end', { type: 'end', result: wireResult(result) }))
  }

  async error(thrown: unknown, requestId: string): Promise<void> {
    if (this.#out.destroyed) return
    const error = errorOf(thrown)
    if (error.kind === 'internal') this.request.log.error({ err: error, cause: error.cause, execution: requestId }, 'stream failed')
    await this.send(sseFrame('error', errorBody(error, requestId)))
  }

  /** @throws FaasError `execution/cancelled` when the client is gone */
  send(text: string): Promise<void> | void {
    if (this.#out.destroyed) return Promise.reject(gone())
    if (this.#out.write(text)) return
    return drained(this.#out) // I1
  }

  close(): void {
    if (!this.started) return
    clearInterval(this.#heartbeat)
    this.gateway.counters.streams--
    this.gateway.counters.answered(this.request.method, this.request.routeOptions.url ?? 'none', 200)
    this.request.log.info({ method: this.request.method, route: this.request.routeOptions.url, status: 200, principal: this.request.identity.principal }, 'stream ended')
    this.#out.end()
  }
}

export function wantsEventStream(request: FastifyRequest): boolean {
  return request.headers.accept?.split(',').some((type) => type.trim().split(';')[0] === 'text/event-stream') === true
}

function wireResult(result: ExecutionResult): unknown {
  const end = wireEvent({ seq: 0, type: 'end', result, atMs: result.endedAtMs })
  return end.type === 'end' ? end.result : undefined
}

/** Resolves when `out` takes more; rejects when it closed instead. */
function drained(out: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (finish: () => void) => () => {
      out.off('drain', onDrain)
      out.off('close', onClose)
      finish()
    }
    const onDrain = settle(resolve)
    const onClose = settle(() => reject(gone()))
    out.on('drain', onDrain)
    out.on('close', onClose)
  })
}

function gone(): FaasError {
  return new FaasError('execution/cancelled', { message: 'The client went away.' })
}
