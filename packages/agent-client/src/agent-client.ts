/**
 * The host's side of one connection to a guest agent.
 *
 * The guest is not trusted: everything it may send is bounded, and the first thing that does not fit the protocol
 * ends the connection with `agent/protocol-error`. Losing the connection rejects everything pending with
 * `agent/disconnected`.
 */
import { connect as connectSocket } from 'node:net'
import { FaasError, type ExecIo, type ExecSpec } from '@faas-platform/core'
import { AgentExec, type ExecLink } from './agent-exec.js'
import { Deferred } from './deferred.js'
import { abortError, decodeError, disconnected, protocolError } from './errors.js'
import { DEFAULT_WINDOW_BYTES, encodeExec, type ExecOptions } from './exec-request.js'
import { Rpc } from './rpc.js'
import { StreamTable, type StreamHandler } from './stream-table.js'
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

/** What the agent says of itself when greeted. */
export interface AgentInfo {
  readonly version: string
  readonly pid: number
  /** As the last `reseed` named it; empty before. */
  readonly sandboxId: string
  readonly features: bigint
  readonly execsMax: number
  readonly stdinWindowBytes: number
  readonly guestTimeMs: number
}

export interface AgentHealth {
  readonly guestTimeMs: number
  readonly execsLive: number
  /** Processes without a parent that the agent has reaped so far. */
  readonly orphansReaped: number
}

const CONNECT_TIMEOUT_MS = 5_000
const CALL_TIMEOUT_MS = 10_000

export class AgentClient implements AsyncDisposable {
  readonly #transport: Transport
  readonly #streams = new StreamTable()
  readonly #greeting = new Deferred<AgentInfo>()
  readonly #closed = new Deferred<FaasError | null>()
  #error: FaasError | null = null
  #info: AgentInfo | null = null
  #closing = false

  private constructor(stream: AgentStream) {
    this.#transport = new Transport(stream, {
      onMessage: (kind, id, payload) => this.#onMessage(kind, id, payload),
      onData: (kind, id, bytes) => this.#onData(kind, id, bytes),
      onEnd: (fault, cause) => this.#onEnd(fault, cause),
    })
  }

  /** Greets the agent on an open stream, which belongs to the client from now on. @throws `agent/*` */
  static async connect(stream: AgentStream, options: ConnectOptions = {}): Promise<AgentClient> {
    const client = new AgentClient(stream)
    const hello = new FieldWriter().text(1, 'FAAS').u16(2, PROTOCOL_VERSION).u16(3, PROTOCOL_VERSION).finish()
    client.#transport.send(KIND.hello, 0, hello)
    try {
      await client.#bounded(client.#greeting.promise, 'greeting', { timeoutMs: CONNECT_TIMEOUT_MS, ...options })
    } catch (error) {
      await client.close()
      throw error
    }
    return client
  }

  /** Connects to a listening agent's socket. @throws `agent/*` */
  static async connectUnix(path: string, options: ConnectOptions = {}): Promise<AgentClient> {
    return AgentClient.connect(connectSocket(path), options)
  }

  get info(): AgentInfo {
    if (this.#info === null) throw disconnected(undefined)
    return this.#info
  }

  /** Resolves when the connection is over: null after `close`, else why. */
  get closed(): Promise<FaasError | null> {
    return this.#closed.promise
  }

  /**
   * Starts a command; resolves once the guest's kernel has executed it.
   * @throws `execution/spawn-failed` with `details.reason` and `details.errno`, `execution/cancelled`, `agent/*`
   */
  async exec(spec: ExecSpec, io: ExecIo, options: ExecOptions = {}): Promise<AgentExec> {
    const payload = encodeExec(spec, options)
    const stdinWindowBytes = spec.stdin === 'pipe' ? this.info.stdinWindowBytes : null
    const windowBytes = spec.keepOnDisconnect === true
      ? Math.min(options.windowBytes ?? DEFAULT_WINDOW_BYTES, options.ringBytes ?? DEFAULT_WINDOW_BYTES)
      : options.windowBytes ?? DEFAULT_WINDOW_BYTES
    const exec = new AgentExec(this.#link, io, { windowBytes, stdinWindowBytes })
    return this.#begin(exec, KIND.exec, payload, options.signal)
  }

  /** Takes over the output of a running or ended kept command, from the given positions on (default: what is held). */
  async attach(
    execId: number,
    io: ExecIo,
    options: { readonly stdoutCursor?: number; readonly stderrCursor?: number; readonly windowBytes?: number; readonly signal?: AbortSignal } = {},
  ): Promise<AgentExec> {
    const windowBytes = options.windowBytes ?? DEFAULT_WINDOW_BYTES
    const exec = new AgentExec(this.#link, io, { windowBytes, stdinWindowBytes: null })
    const payload = new FieldWriter()
      .u32(1, execId).u64(2, options.stdoutCursor ?? 0).u64(3, options.stderrCursor ?? 0).u64(4, windowBytes).finish()
    return this.#begin(exec, KIND.attach, payload, options.signal)
  }

  async ping(options: CallOptions = {}): Promise<AgentHealth> {
    const pong = await this.#call(KIND.ping, new Uint8Array(), KIND.pong, options)
    return { guestTimeMs: Number(pong.u64(2) / 1_000_000n), execsLive: pong.u32(3), orphansReaped: pong.count(4) }
  }

  /** Ends the connection. Commands that are not kept are killed by the agent. Idempotent. */
  async close(): Promise<void> {
    this.#closing = true
    this.#transport.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  readonly #link: ExecLink = {
    send: (kind, stream, payload) => this.#transport.send(kind, stream, payload),
    call: (kind, payload) => this.#call(kind, payload, KIND.ok, {}),
    close: (stream) => this.#streams.close(stream),
  }

  async #begin(exec: AgentExec, kind: number, payload: Uint8Array, signal: AbortSignal | undefined): Promise<AgentExec> {
    if (signal?.aborted === true) throw abortError(signal)
    exec.bind(this.#open(exec, kind, payload))
    if (signal === undefined) {
      await exec.started.promise
      return exec
    }
    const onAbort = (): void => exec.abort(abortError(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    const forget = (): void => signal.removeEventListener('abort', onAbort)
    exec.wait().then(forget, forget)
    try {
      await this.#bounded(exec.started.promise, 'start', { signal, timeoutMs: 0 })
    } catch (error) {
      if (!signal.aborted) forget()
      throw error
    }
    return exec
  }

  #open(handler: StreamHandler, kind: number, payload: Uint8Array): number {
    if (this.#error !== null) throw this.#error
    if (this.#transport.ended) throw disconnected(undefined)
    const stream = this.#streams.open(handler)
    this.#transport.send(kind, stream, payload)
    return stream
  }

  async #call(kind: number, payload: Uint8Array, expected: number, options: CallOptions): Promise<FieldMap> {
    let stream = 0
    // A late answer to a call given up on still finds its stream, and is dropped.
    const rpc = new Rpc(expected, () => this.#streams.close(stream))
    stream = this.#open(rpc, kind, payload)
    return this.#bounded(rpc.answer.promise, 'answer', { timeoutMs: CALL_TIMEOUT_MS, ...options })
  }

  /** Waits under a deadline (0: none) and a signal. */
  async #bounded<T>(promise: Promise<T>, what: string, options: CallOptions): Promise<T> {
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
