/**
 * One WebSocket that speaks JSON in text frames.
 *
 * I1. A client that does not read slows the source: `send` waits while the socket's buffer is full.
 * I2. A client that answers no ping for two heartbeats is cut off.
 * I3. No more sockets and event streams are open than the configuration allows.
 */
import { FaasError } from '@faas-platform/core'
import type { ServerMessage } from '@faas-platform/protocol'
import type { WebSocket } from '@fastify/websocket'
import type { GatewayContext } from '../context.js'
import { errorOf } from '../errors.js'

const HEARTBEAT_MS = 15_000
const BUFFER_BYTES_MAX = 1024 * 1024

/** Tells the client and closes when there are too many (I3). @returns null then */
export function openJsonSocket(gateway: GatewayContext, raw: WebSocket): JsonSocket | null {
  const isFull = gateway.counters.streams >= gateway.config.streamsMax
  const socket = new JsonSocket(gateway, raw)
  if (!isFull) return socket
  const refusal = new FaasError('admission/queue-full', { message: 'Too many event streams are open.', details: { retryAfterMs: 1000 } })
  socket.error(refusal).catch((error: unknown) => gateway.log.debug({ err: error }, 'refusal not sent'))
  socket.close(1013, 'too many streams')
  return null
}

export class JsonSocket {
  readonly #closed = new AbortController()
  readonly #heartbeat: NodeJS.Timeout
  #answered = true

  constructor(private readonly gateway: GatewayContext, private readonly socket: WebSocket) {
    gateway.counters.streams++
    socket.on('pong', () => {
      this.#answered = true
    })
    socket.on('close', () => {
      clearInterval(this.#heartbeat)
      gateway.counters.streams--
      this.#closed.abort(new FaasError('execution/cancelled', { message: 'The client went away.' }))
    })
    socket.on('error', (error) => gateway.log.debug({ err: error }, 'WebSocket failed'))
    this.#heartbeat = setInterval(() => this.#beat(), HEARTBEAT_MS)
  }

  /** Aborted once the client is gone. */
  get signal(): AbortSignal {
    return this.#closed.signal
  }

  /** @throws FaasError `execution/cancelled` when the client is gone */
  async send(message: ServerMessage): Promise<void> {
    this.signal.throwIfAborted()
    if (this.socket.bufferedAmount < BUFFER_BYTES_MAX) {
      this.socket.send(JSON.stringify(message))
      return
    }
    // I1: the callback comes when the bytes left the buffer.
    await new Promise<void>((resolve, reject) => {
      this.socket.send(JSON.stringify(message), (error) => (error == null ? resolve() : reject(error)))
    })
  }

  async error(thrown: unknown): Promise<void> {
    if (this.signal.aborted) return
    const error = errorOf(thrown)
    if (error.kind === 'internal') this.gateway.log.error({ err: error, cause: error.cause }, 'WebSocket call failed')
    await this.send({ type: 'error', error: { code: error.code, message: error.message, hint: error.hint ?? null } })
  }

  onMessage(handle: (text: string) => void): void {
    this.socket.on('message', (data, isBinary) => {
      // The original ignores binary frames.
      if (!isBinary) handle(Buffer.isBuffer(data) ? data.toString('utf8') : Buffer.concat(Array.isArray(data) ? data : [Buffer.from(data)]).toString('utf8'))
    })
  }

  /** 1000 normal, 1008 refused, 1011 failed, 1013 try again later. */
  close(code: 1000 | 1008 | 1011 | 1013, reason: string): void {
    this.socket.close(code, reason.slice(0, 120))
  }

  #beat(): void {
    if (!this.#answered) {
      this.socket.terminate() // I2
      return
    }
    this.#answered = false
    this.socket.ping()
    this.send({ type: 'heartbeat' }).catch((error: unknown) => this.gateway.log.debug({ err: error }, 'heartbeat not sent'))
  }
}
