/**
 * One command on one connection.
 *
 * I1. `wait` settles once: after the end and after the sink took every byte, or on the first failure.
 * I2. After an abort or a sink failure the group is killed and output dropped, yet still granted, so that it can end.
 */
import { FaasError, type ExecExit, type ExecHandle, type ExecIo } from '@faas-platform/core'
import { Deferred } from './deferred.js'
import { decodeError } from './errors.js'
import { InputWindow } from './input-window.js'
import { OutputChannel } from './output-channel.js'
import { signalName, signalNumber } from './signals.js'
import type { StreamHandler } from './stream-table.js'
import { FieldMap, FieldWriter, KIND } from './wire.js'

/** What a command needs of its connection. */
export interface ExecLink {
  send(kind: number, stream: number, payload: Uint8Array): void
  /** A request with an OK answer on a stream of its own. */
  call(kind: number, payload: Uint8Array): Promise<FieldMap>
  close(stream: number): void
}

export interface AgentExecExit extends ExecExit {
  readonly coreDumped: boolean
  readonly stdoutBytes: number
  readonly stderrBytes: number
  /** A process that outlived the command kept a pipe open; what it wrote later was not read. */
  readonly drainExpired: boolean
}

const EMPTY = new Uint8Array()

export class AgentExec implements ExecHandle, StreamHandler {
  pid = 0
  /** Number of the command in the agent, for `attach`. */
  execId = 0
  readonly started = new Deferred<void>()
  readonly #link: ExecLink
  readonly #exit = new Deferred<AgentExecExit>()
  readonly #channels: readonly [OutputChannel, OutputChannel]
  readonly #seen = [0, 0]
  #cursors: [number, number] = [0, 0]
  #stdin: InputWindow | null
  #stream = 0
  #killed = false
  #failure: unknown
  #detaching: Deferred<void> | null = null

  constructor(link: ExecLink, io: ExecIo, options: { readonly windowBytes: number; readonly stdinWindowBytes: number | null }) {
    this.#link = link
    const channel = (index: 0 | 1, name: 'stdout' | 'stderr'): OutputChannel =>
      new OutputChannel({
        windowBytes: options.windowBytes,
        sink: (bytes) => io.onOutput(name, bytes),
        grant: (bytes) => this.#grant(index + 1, bytes),
        onSinkError: (error) => this.abort(error),
      })
    this.#channels = [channel(0, 'stdout'), channel(1, 'stderr')]
    const window = options.stdinWindowBytes
    this.#stdin = window === null ? null : this.#openStdin(window)
  }

  bind(stream: number): void {
    this.#stream = stream
  }

  /** Absolute positions in stdout and stderr up to which output arrived; pass them to `attach` to go on. */
  get cursors(): { readonly stdout: number; readonly stderr: number } {
    return { stdout: this.#cursors[0] + (this.#seen[0] ?? 0), stderr: this.#cursors[1] + (this.#seen[1] ?? 0) }
  }

  wait(): Promise<AgentExecExit> {
    return this.#exit.promise
  }

  async writeStdin(bytes: Uint8Array): Promise<void> {
    await this.#openedStdin().write(bytes)
  }

  async closeStdin(): Promise<void> {
    const stdin = this.#openedStdin()
    await stdin.after(() => {
      stdin.end(new FaasError('request/invalid', { message: 'The standard input was closed.' }))
      this.#link.send(KIND.stdinClose, this.#stream, EMPTY)
    })
  }

  async kill(signal: string): Promise<void> {
    await this.#signal(signalNumber(signal))
  }

  async resize(cols: number, rows: number): Promise<void> {
    await this.#link.call(KIND.resize, new FieldWriter().u32(1, this.execId).u64(2, cols).u64(3, rows).finish())
  }

  /** Leaves a kept command running without a reader. `wait` rejects with `agent/disconnected`. */
  detach(): Promise<void> {
    if (this.#detaching === null) {
      this.#detaching = new Deferred<void>()
      this.#link.send(KIND.detach, this.#stream, EMPTY)
    }
    return this.#detaching.promise
  }

  /** Ends the process group and rejects `wait` with `reason`. */
  abort(reason: unknown): void {
    if (this.#exit.settled) return
    this.#fail(reason)
    for (const channel of this.#channels) channel.drop()
    if (this.execId !== 0) this.#killGroup()
  }

  onMessage(kind: number, payload: Uint8Array): string | null {
    switch (kind) {
      case KIND.started:
      case KIND.attached:
        return this.#onStarted(kind, payload)
      case KIND.window:
        return this.#onWindow(payload)
      case KIND.exit:
        return this.#onExit(payload)
      case KIND.ok: // the answer to DETACH
        if (this.#detaching === null) return 'an answer to nothing'
        this.#detaching.resolve()
        this.#over(new FaasError('agent/disconnected', { message: 'The command was detached and runs on.' }))
        return null
      case KIND.error: {
        const error = decodeError(payload)
        if (error === null) return 'a malformed ERROR'
        this.#over(error)
        return null
      }
      default:
        return 'a message that does not belong to a command'
    }
  }

  onData(kind: number, bytes: Uint8Array): string | null {
    if (kind === KIND.data) return 'file data on the stream of a command'
    if (this.execId === 0) return 'output before the start'
    const index = kind === KIND.stdout ? 0 : 1
    this.#seen[index] = (this.#seen[index] ?? 0) + bytes.length
    return this.#channels[index].push(bytes)
  }

  onLost(error: FaasError): void {
    this.started.reject(error)
    this.#stdin?.end(error)
    this.#detaching?.reject(error)
    this.#fail(error)
  }

  #onStarted(kind: number, payload: Uint8Array): string | null {
    const fields = new FieldMap(payload)
    this.execId = fields.u32(1)
    this.pid = fields.u32(2)
    if (kind === KIND.attached) {
      this.#cursors = [fields.count(3), fields.count(4)]
      this.#stdin = fields.u8(5) === 1 ? this.#openStdin(fields.u32(7)) : null
    }
    if (fields.malformed || this.execId === 0 || this.started.settled) return 'a malformed start'
    this.started.resolve()
    if (this.#failure !== undefined) this.#killGroup() // aborted while starting
    return null
  }

  #onWindow(payload: Uint8Array): string | null {
    if (payload.length !== 5 || payload[0] !== 0) return 'a malformed WINDOW'
    const bytes = new DataView(payload.buffer, payload.byteOffset, 5).getUint32(1, true)
    return this.#stdin?.grant(bytes) ?? null
  }

  #onExit(payload: Uint8Array): string | null {
    const fields = new FieldMap(payload)
    const status = fields.u32(1)
    const signal = fields.u32(2)
    const exit: AgentExecExit = {
      exitCode: signal === 0 ? status : null,
      signal: signal === 0 ? null : signalName(signal),
      coreDumped: fields.u8(3) === 1,
      usage: {
        userCpuMs: fields.count(4) / 1000,
        systemCpuMs: fields.count(5) / 1000,
        maxRssBytes: fields.count(6),
        wallMs: fields.count(7) / 1000,
      },
      oomKilled: fields.u8(8) === 2,
      stdoutBytes: fields.count(9),
      stderrBytes: fields.count(10),
      drainExpired: fields.u8(11) === 1,
    }
    if (fields.malformed || !this.started.settled || status > 255 || signal > 127) return 'a malformed EXIT'
    this.#link.close(this.#stream)
    this.#stdin?.end(new FaasError('execution/not-running', { message: 'The command has ended.' }))
    this.#channels[0].whenIdle(() => {
      this.#channels[1].whenIdle(() => {
        if (!this.#exit.settled) this.#exit.resolve(exit)
      })
    })
    return null
  }

  /** The stream ended without an exit. */
  #over(error: FaasError): void {
    this.#link.close(this.#stream)
    this.onLost(error)
  }

  #fail(reason: unknown): void {
    this.#failure = reason
    if (!this.#exit.settled) this.#exit.reject(reason)
  }

  #openStdin(window: number): InputWindow {
    return new InputWindow(window, (bytes) => this.#link.send(KIND.stdin, this.#stream, bytes))
  }

  #openedStdin(): InputWindow {
    if (this.#stdin !== null) return this.#stdin
    throw new FaasError('request/invalid', { message: 'The command was started without a standard input to write to.' })
  }

  #grant(channel: number, bytes: number): void {
    const payload = Buffer.allocUnsafe(5)
    payload.writeUInt8(channel, 0)
    payload.writeUInt32LE(bytes, 1)
    this.#link.send(KIND.window, this.#stream, payload)
  }

  #killGroup(): void {
    if (this.#killed) return
    this.#killed = true
    // The only refusal is that it has ended meanwhile, which is what was wanted.
    this.#signal(signalNumber('SIGKILL')).catch(() => undefined)
  }

  async #signal(number: number): Promise<void> {
    await this.#link.call(KIND.signal, new FieldWriter().u32(1, this.execId).u64(2, number).finish())
  }
}
