/**
 * One connection to a guest agent: greeting, streams, calls and transfers.
 *
 * The guest is not trusted: everything it may send is bounded, and the first thing that does not fit the protocol
 * ends the connection with `agent/protocol-error`. Losing the connection rejects everything pending with
 * `agent/disconnected`.
 */
import { FaasError } from '@faas-platform/core'
import { Deferred } from './deferred.js'
import { abortError, decodeError, disconnected, protocolError } from './errors.js'
import { Rpc } from './rpc.js'
import { StreamTable, type StreamHandler } from './stream-table.js'
import { Transfer, TRANSFER_WINDOW_BYTES } from './transfer.js'
import { Transport, type AgentStream } from './transport.js'
import { FieldMap, FieldWriter, KIND, PROTOCOL_VERSION } from './wire.js'

export interface ConnectOptions {
  /** For the connection and the greeting together, ms. Default 5_000. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface CallOptions {
  /** Default 10_000. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

export interface SignalOption {
  readonly signal?: AbortSignal
}

/** What the agent says of itself when greeted. */
export interface AgentInfo {
  readonly version: string
  readonly pid: number
  /** As the last `reseed` named it; empty before. */
  readonly sandboxId: string
  readonly features: bigint
  readonly execsMax: number
  readonly stdinWindowBytes: number
  readonly fileWindowBytes: number
  readonly guestTimeMs: number
}

const CONNECT_TIMEOUT_MS = 5_000
const CALL_TIMEOUT_MS = 10_000

export class AgentConnection {
  readonly #transport: Transport
  readonly #streams = new StreamTable()
  readonly #greeting = new Deferred<AgentInfo>()
  readonly #closed = new Deferred<FaasError | null>()
  #error: FaasError | null = null
  #info: AgentInfo | null = null
  #closing = false

  constructor(stream: AgentStream) {
    this.#transport = new Transport(stream, {
      onMessage: (kind, id, payload) => this.#onMessage(kind, id, payload),
      onData: (kind, id, bytes) => this.#onData(kind, id, bytes),
      onEnd: (fault, cause) => this.#onEnd(fault, cause),
    })
  }

  async greet(options: ConnectOptions): Promise<void> {
    const hello = new FieldWriter().text(1, 'FAAS').u16(2, PROTOCOL_VERSION).u16(3, PROTOCOL_VERSION).finish()
    this.#transport.send(KIND.hello, 0, hello)
    try {
      await this.bounded(this.#greeting.promise, 'greeting', { timeoutMs: CONNECT_TIMEOUT_MS, ...options })
    } catch (error) {
      this.close()
      throw error
    }
  }

  get info(): AgentInfo {
    if (this.#info === null) throw disconnected(undefined)
    return this.#info
  }

  /** Resolves when the connection is over: null after `close`, else why. */
  get closed(): Promise<FaasError | null> {
    return this.#closed.promise
  }

  close(): void {
    this.#closing = true
    this.#transport.close()
  }

  /** What commands and transfers need of us. */
  readonly link = {
    send: (kind: number, stream: number, payload: Uint8Array): void => this.#transport.send(kind, stream, payload),
    call: (kind: number, payload: Uint8Array): Promise<FieldMap> => this.call(kind, payload),
    close: (stream: number): void => this.#streams.close(stream),
  }

  /** Begins a file operation that moves data. */
  transfer(kind: number, request: FieldWriter, options: SignalOption): Transfer {
    const { signal } = options
    if (signal?.aborted === true) throw abortError(signal)
    const transfer = new Transfer(this.link, this.info.fileWindowBytes)
    transfer.bind(this.open(transfer, kind, request.u32(9, TRANSFER_WINDOW_BYTES).finish()))
    if (signal !== undefined) {
      const onAbort = (): void => transfer.cancel(abortError(signal))
      signal.addEventListener('abort', onAbort, { once: true })
      const forget = (): void => signal.removeEventListener('abort', onAbort)
      transfer.done.promise.then(forget, forget)
    }
    return transfer
  }

  /** Sends all of a source to a file operation and waits for its answer. */
  async upload(
    kind: number, request: FieldWriter, source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, options: SignalOption,
  ): Promise<FieldMap> {
    const transfer = this.transfer(kind, request, options)
    const sending = transfer.sendAll(source)
    // The source's own failure must not leave half an archive looking whole.
    sending.catch((error: unknown) => transfer.cancel(error))
    const answer = await transfer.done.promise
    if (answer.malformed) this.fault('a malformed answer')
    return answer
  }

  /** Ends the connection because of what the guest said. */
  fault(what: string): never {
    this.#transport.fail(what)
    throw this.#error ?? protocolError(what)
  }

  /** Opens a stream with a request. */
  open(handler: StreamHandler, kind: number, payload: Uint8Array): number {
    if (this.#error !== null) throw this.#error
    if (this.#transport.ended) throw disconnected(undefined)
    const stream = this.#streams.open(handler)
    this.#transport.send(kind, stream, payload)
    return stream
  }

  /** A request with one answer. */
  async call(kind: number, payload: Uint8Array, options: CallOptions = {}, expected: number = KIND.ok): Promise<FieldMap> {
    let stream = 0
    // A late answer to a call given up on still finds its stream, and is dropped.
    const rpc = new Rpc(expected, () => this.#streams.close(stream))
    stream = this.open(rpc, kind, payload)
    return this.bounded(rpc.answer.promise, 'answer', { timeoutMs: CALL_TIMEOUT_MS, ...options })
  }

  /** Waits under a deadline (0: none) and a signal. */
  async bounded<T>(promise: Promise<T>, what: string, options: CallOptions): Promise<T> {
    const { timeoutMs = 0, signal } = options
    if (signal?.aborted === true) throw abortError(signal)
    const stop = new Deferred<never>()
    const timer = timeoutMs === 0 ? undefined : setTimeout(() => {
      stop.reject(new FaasError('agent/timeout', { message: `The guest agent gave no ${what} within ${timeoutMs} ms.` }))
    }, timeoutMs)
    const onAbort = (): void => stop.reject(signal === undefined ? undefined : abortError(signal))
    signal?.addEventListener('abort', onAbort, { once: true })
    try {
      return await Promise.race([promise, stop.promise])
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
    }
  }

  #onMessage(kind: number, id: number, payload: Uint8Array): void {
    const fault = id === 0 ? this.#onConnectionMessage(kind, payload) : this.#onStreamMessage(kind, id, payload)
    if (fault !== null) this.#transport.fail(fault)
  }

  #onStreamMessage(kind: number, id: number, payload: Uint8Array): string | null {
    const handler = this.#streams.get(id)
    return handler === undefined ? 'a message on a stream that is not open' : handler.onMessage(kind, payload)
  }

  #onData(kind: number, id: number, bytes: Uint8Array): void {
    const handler = this.#streams.get(id)
    const fault = handler === undefined ? 'data on a stream that is not open' : handler.onData(kind, bytes)
    if (fault !== null) this.#transport.fail(fault)
  }

  #onConnectionMessage(kind: number, payload: Uint8Array): string | null {
    if (kind === KIND.error) {
      this.#error = decodeError(payload)
      return 'it ended the connection with an error'
    }
    if (kind !== KIND.ready || this.#greeting.settled) return 'an unexpected message on the connection'
    const fields = new FieldMap(payload)
    const version = fields.u16(1)
    const info: AgentInfo = {
      features: fields.u64(2),
      execsMax: fields.u32(5),
      stdinWindowBytes: fields.u32(6),
      version: fields.text(7).slice(0, 64),
      pid: fields.u32(8),
      sandboxId: fields.text(9).slice(0, 256),
      guestTimeMs: Number(fields.u64(10) / 1_000_000n),
      fileWindowBytes: fields.u32(11),
    }
    if (fields.malformed || version !== PROTOCOL_VERSION) return 'a malformed READY'
    this.#info = info
    this.#greeting.resolve(info)
    return null
  }

  #onEnd(fault: string | null, cause: unknown): void {
    this.#error ??= fault === null ? disconnected(cause) : protocolError(fault)
    this.#greeting.reject(this.#error)
    this.#streams.loseAll(this.#error)
    this.#closed.resolve(this.#closing && fault === null ? null : this.#error)
  }
}
