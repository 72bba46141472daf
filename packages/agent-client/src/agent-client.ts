/** What a host can ask of a guest agent. How a connection behaves is said in `connection.ts`. */
import { connect as connectSocket } from 'node:net'
import type { ExecIo, ExecSpec, FaasError } from '@faas-platform/core'
import { AgentExec } from './agent-exec.js'
import { AgentConnection, type AgentInfo, type CallOptions, type ConnectOptions } from './connection.js'
import { abortError } from './errors.js'
import { DEFAULT_WINDOW_BYTES, encodeExec, type ExecOptions } from './exec-request.js'
import { EntryDecoder, fileEntryOf, type FileEntry } from './file-entry.js'
import { signalNumber } from './signals.js'
import type { AgentStream } from './transport.js'
import { FieldMap, FieldWriter, KIND } from './wire.js'

export interface FileOptions {
  readonly signal?: AbortSignal
}

export interface WriteFileOptions extends FileOptions {
  /** Permission bits; absent: 0644 for a new file, unchanged for an old one. */
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly parents?: boolean
  readonly append?: boolean
  /** Fail when it exists. */
  readonly exclusive?: boolean
}

/** One command as the agent knows it. */
export interface ExecInfo {
  readonly execId: number
  readonly pid: number
  readonly ended: boolean
  readonly attached: boolean
  readonly tty: boolean
  /** Positions between which output can be replayed. */
  readonly stdout: { readonly base: number; readonly head: number }
  readonly stderr: { readonly base: number; readonly head: number }
  readonly ageMs: number
  /** argv[0], cut to 256 bytes. */
  readonly name: string
}

export interface ReseedOptions extends CallOptions {
  readonly sandboxId: string
  readonly hostname?: string
  /** Random bytes, at most 4096. */
  readonly entropy?: Uint8Array
}

export interface ReseedReport {
  /** 0 when set or not asked for, else why not. */
  readonly hostnameErrno: number
  /** `credited` needs privilege; `mixed` still makes two forks differ. */
  readonly entropy: 'none' | 'mixed' | 'credited'
  readonly entropyErrno: number
  /** How far the guest's clock is behind the host's, ms. */
  readonly behindMs: number
}

export interface AgentHealth {
  readonly guestTimeMs: number
  readonly execsLive: number
  /** Processes without a parent that the agent has reaped so far. */
  readonly orphansReaped: number
}

/** Removing a large tree takes its time. */
const FILE_TIMEOUT_MS = 60_000
const EMPTY = new Uint8Array()
const FLAG = { recursive: 1, follow: 2, append: 4, exclusive: 8 } as const

export class AgentClient implements AsyncDisposable {
  readonly #connection: AgentConnection

  private constructor(connection: AgentConnection) {
    this.#connection = connection
  }

  /** Greets the agent on an open stream, which belongs to the client from now on. @throws `agent/*` */
  static async connect(stream: AgentStream, options: ConnectOptions = {}): Promise<AgentClient> {
    const connection = new AgentConnection(stream)
    await connection.greet(options)
    return new AgentClient(connection)
  }

  /** Connects to a listening agent's socket. @throws `agent/*` */
  static async connectUnix(path: string, options: ConnectOptions = {}): Promise<AgentClient> {
    return AgentClient.connect(connectSocket(path), options)
  }

  get info(): AgentInfo {
    return this.#connection.info
  }

  /** Resolves when the connection is over: null after `close`, else why. */
  get closed(): Promise<FaasError | null> {
    return this.#connection.closed
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
    const exec = new AgentExec(this.#connection.link, io, { windowBytes, stdinWindowBytes })
    return this.#begin(exec, KIND.exec, payload, options.signal)
  }

  /** Takes over the output of a running or ended kept command, from the given positions on (default: what is held). */
  async attach(
    execId: number,
    io: ExecIo,
    options: { readonly stdoutCursor?: number; readonly stderrCursor?: number; readonly windowBytes?: number; readonly signal?: AbortSignal } = {},
  ): Promise<AgentExec> {
    const windowBytes = options.windowBytes ?? DEFAULT_WINDOW_BYTES
    const exec = new AgentExec(this.#connection.link, io, { windowBytes, stdinWindowBytes: null })
    const payload = new FieldWriter()
      .u32(1, execId).u64(2, options.stdoutCursor ?? 0).u64(3, options.stderrCursor ?? 0).u64(4, windowBytes).finish()
    return this.#begin(exec, KIND.attach, payload, options.signal)
  }

  async ping(options: CallOptions = {}): Promise<AgentHealth> {
    const pong = await this.#connection.call(KIND.ping, EMPTY, options, KIND.pong)
    return { guestTimeMs: Number(pong.u64(2) / 1_000_000n), execsLive: pong.u32(3), orphansReaped: pong.count(4) }
  }

  /** Every command the agent knows: running, or ended and not forgotten. */
  async listExecs(options: CallOptions = {}): Promise<readonly ExecInfo[]> {
    const answer = await this.#connection.call(KIND.listExecs, EMPTY, options)
    return answer.all(1).map((payload) => {
      const f = new FieldMap(payload)
      const info: ExecInfo = {
        execId: f.u32(1), pid: f.u32(2), ended: f.u8(3) === 1, attached: f.u8(4) === 1, tty: f.u8(5) === 1,
        stdout: { base: f.count(6), head: f.count(7) }, stderr: { base: f.count(8), head: f.count(9) },
        ageMs: f.count(10), name: f.text(11),
      }
      return f.malformed ? this.#connection.fault('a malformed command record') : info
    })
  }

  /** Drops the record of an ended, detached command. @throws `execution/not-running` */
  async forget(execId: number, options: CallOptions = {}): Promise<void> {
    await this.#connection.call(KIND.forget, new FieldWriter().u32(1, execId).finish(), options)
  }

  /** Signals every process of the sandbox but the agent. */
  async killAll(signal = 'SIGKILL', options: CallOptions = {}): Promise<void> {
    await this.#connection.call(KIND.killAll, new FieldWriter().u32(2, signalNumber(signal)).finish(), options)
  }

  /** Ends every process and the agent; the connection closes. */
  async shutdown(options: CallOptions = {}): Promise<void> {
    await this.#connection.call(KIND.shutdown, EMPTY, options)
  }

  /**
   * Holds all output and answers when nothing is on the way any more: the moment for a checkpoint. Commands survive a
   * connection that closes now. `resume`, or the next connection, ends it.
   * @param options.sync Flush the root file system (`root`), all (`all`; on a shared kernel that is the whole host), or nothing (default).
   */
  async quiesce(options: CallOptions & { readonly sync?: 'none' | 'root' | 'all' } = {}): Promise<void> {
    const sync = { none: 0, root: 1, all: 2 }[options.sync ?? 'none']
    await this.#connection.call(KIND.quiesce, new FieldWriter().u8(10, sync).finish(), options)
  }

  async resume(options: CallOptions = {}): Promise<void> {
    await this.#connection.call(KIND.resume, EMPTY, options)
  }

  /** Gives a restored sandbox its own identity. */
  async reseed(options: ReseedOptions): Promise<ReseedReport> {
    const w = new FieldWriter().text(1, options.sandboxId)
    if (options.hostname !== undefined) w.text(2, options.hostname)
    if (options.entropy !== undefined) w.bytes(3, options.entropy)
    w.u64(4, BigInt(Date.now()) * 1_000_000n)
    const f = await this.#connection.call(KIND.reseed, w.finish(), options)
    const report: ReseedReport = {
      hostnameErrno: f.u32(1),
      entropy: (['none', 'mixed', 'credited'] as const)[f.u8(2)] ?? 'none',
      entropyErrno: f.u32(3),
      behindMs: Number(f.i64(5) / 1_000_000n),
    }
    return f.malformed ? this.#connection.fault('a malformed answer to RESEED') : report
  }

  /** @throws `sandbox/file-error` with `details.errno` */
  async stat(path: string, options: CallOptions & { readonly follow?: boolean } = {}): Promise<FileEntry> {
    const payload = new FieldWriter().text(1, path).u32(4, options.follow === true ? FLAG.follow : 0).finish()
    const answer = await this.#connection.call(KIND.stat, payload, options)
    return fileEntryOf(answer) ?? this.#connection.fault('a malformed file entry')
  }

  /** The entries of a directory, by name. @throws `sandbox/file-error` */
  async *list(path: string, options: FileOptions = {}): AsyncGenerator<FileEntry, void, undefined> {
    const decoder = new EntryDecoder()
    const transfer = this.#connection.transfer(KIND.list, new FieldWriter().text(1, path), options)
    for await (const chunk of transfer.receiveAll()) {
      yield* decoder.push(chunk) ?? this.#connection.fault('a malformed directory listing')
    }
    if (!decoder.isComplete) this.#connection.fault('a directory listing cut off')
  }

  async mkdir(path: string, options: CallOptions & { readonly parents?: boolean; readonly mode?: number } = {}): Promise<void> {
    const w = new FieldWriter().text(1, path).u32(4, options.parents === true ? FLAG.recursive : 0)
    if (options.mode !== undefined) w.u32(3, options.mode)
    await this.#connection.call(KIND.mkdir, w.finish(), options)
  }

  async remove(path: string, options: CallOptions & { readonly recursive?: boolean } = {}): Promise<void> {
    const payload = new FieldWriter().text(1, path).u32(4, options.recursive === true ? FLAG.recursive : 0).finish()
    await this.#connection.call(KIND.remove, payload, { timeoutMs: FILE_TIMEOUT_MS, ...options })
  }

  async move(from: string, to: string, options: CallOptions & { readonly parents?: boolean } = {}): Promise<void> {
    const flags = options.parents === true ? FLAG.recursive : 0
    await this.#connection.call(KIND.move, new FieldWriter().text(1, from).text(2, to).u32(4, flags).finish(), options)
  }

  /** The bytes of a regular file. */
  async *readFile(
    path: string, options: FileOptions & { readonly offset?: number; readonly length?: number } = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const w = new FieldWriter().text(1, path)
    if (options.offset !== undefined) w.u64(7, options.offset)
    if (options.length !== undefined) w.u64(8, options.length)
    yield* this.#connection.transfer(KIND.read, w, options).receiveAll()
  }

  async writeFile(path: string, data: Uint8Array | AsyncIterable<Uint8Array>, options: WriteFileOptions = {}): Promise<void> {
    const flags = (options.parents === true ? FLAG.recursive : 0) | (options.append === true ? FLAG.append : 0)
      | (options.exclusive === true ? FLAG.exclusive : 0)
    const w = new FieldWriter().text(1, path).u32(4, flags)
    if (options.mode !== undefined) w.u32(3, options.mode)
    if (options.uid !== undefined) w.u32(5, options.uid)
    if (options.gid !== undefined) w.u32(6, options.gid)
    await this.#connection.upload(KIND.write, w, data instanceof Uint8Array ? [data] : data, options)
  }

  /** Unpacks a tar stream under an absolute path, whose missing parents are made. @throws `sandbox/path-invalid`, `sandbox/file-error` */
  async copyIn(
    path: string, tar: AsyncIterable<Uint8Array>, options: FileOptions & { readonly uid?: number; readonly gid?: number } = {},
  ): Promise<{ readonly entries: number; readonly bytes: number }> {
    const w = new FieldWriter().text(1, path).u32(4, FLAG.recursive)
    if (options.uid !== undefined) w.u32(5, options.uid)
    if (options.gid !== undefined) w.u32(6, options.gid)
    const answer = await this.#connection.upload(KIND.tarIn, w, tar, options)
    return { entries: answer.count(1), bytes: answer.count(2) }
  }

  /** A tar stream of a file or a tree, named after the last component of its path. */
  async *copyOut(path: string, options: FileOptions & { readonly follow?: boolean } = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const w = new FieldWriter().text(1, path).u32(4, options.follow === true ? FLAG.follow : 0)
    yield* this.#connection.transfer(KIND.tarOut, w, options).receiveAll()
  }

  /** Ends the connection. Commands that are not kept are killed by the agent. Idempotent. */
  async close(): Promise<void> {
    this.#connection.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #begin(exec: AgentExec, kind: number, payload: Uint8Array, signal: AbortSignal | undefined): Promise<AgentExec> {
    if (signal?.aborted === true) throw abortError(signal)
    exec.bind(this.#connection.open(exec, kind, payload))
    if (signal === undefined) {
      await exec.started.promise
      return exec
    }
    const onAbort = (): void => exec.abort(abortError(signal))
    signal.addEventListener('abort', onAbort, { once: true })
    const forget = (): void => signal.removeEventListener('abort', onAbort)
    exec.wait().then(forget, forget)
    try {
      await this.#connection.bounded(exec.started.promise, 'start', { signal, timeoutMs: 0 })
    } catch (error) {
      if (!signal.aborted) forget()
      throw error
    }
    return exec
  }
}
