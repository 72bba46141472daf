/**
 * One in-memory sandbox.
 *
 * I1. Its state follows `SANDBOX_STATES`.
 * I2. `exited` settles exactly once; every exec that has not ended by then rejects with the reason.
 */
import {
  FaasError, SANDBOX_STATES, transition, type Capability, type ExecExit, type ExecHandle, type ExecIo, type ExecSpec, type Lifecycle,
  type RetainedState, type RuntimeFeatures, type RuntimeName, type Sandbox, type SandboxAction, type SandboxExit, type SandboxLimits, type SandboxSpec,
  type SandboxState, type SandboxStats, type TimeBudget,
} from '@faas-platform/core'
import { collect, text } from '../bytes.js'
import { packTarStream, unpackTar } from '../tar.js'
import { applyTar } from './apply-tar.js'
import { ERRNO_NUMBER, GuestError, type Errno, type FileTree } from './file-tree.js'
import { BytePipe, nullFile, OpenFile, Terminal } from './io.js'
import { SIGNALS, type Kernel, type Proc, type Program } from './kernel.js'
import type { Resolve } from './shell/run.js'

/** Linux: MAX_ARG_STRLEN, and a quarter of the default 8 MiB stack. */
const ARGUMENT_BYTES_MAX = 131_072
const ARGUMENTS_BYTES_MAX = 2 * 1024 * 1024

const LOSS_CODES = { lost: 'sandbox/lost', oom: 'sandbox/oom', disk_limit: 'execution/disk-limit' } as const

export interface MemorySandboxParts {
  readonly runtime: RuntimeName
  readonly features: RuntimeFeatures
  readonly spec: SandboxSpec
  readonly timeBudget: TimeBudget
  readonly kernel: Kernel
  readonly resolve: Resolve
  /** Before each exec: delays and hangs. */
  readonly beforeExec: (signal: AbortSignal) => Promise<void>
  /** Called once when it is over. */
  readonly onEnd: () => void
  readonly onRetain: (state: RetainedState) => void
  readonly onRelease: (state: RetainedState) => void
}

export class MemorySandbox implements Sandbox {
  readonly id
  readonly runtime
  readonly spec
  readonly timeBudget
  readonly exited: Promise<SandboxExit>
  readonly kernel: Kernel
  #life: Lifecycle<SandboxState> = { state: 'ready', incarnation: 0 }
  #over: FaasError | undefined
  #settleExited!: (exit: SandboxExit) => void
  readonly #failures = new Set<(error: FaasError) => void>()

  constructor(private readonly parts: MemorySandboxParts) {
    this.id = parts.spec.id
    this.runtime = parts.runtime
    this.spec = parts.spec
    this.timeBudget = parts.timeBudget
    this.kernel = parts.kernel
    this.exited = new Promise((resolve) => (this.#settleExited = resolve))
  }

  get tree(): FileTree {
    return this.kernel.tree
  }

  get state(): SandboxState {
    return this.#life.state
  }

  async exec(spec: ExecSpec, io: ExecIo, options: { readonly signal: AbortSignal }): Promise<ExecHandle> {
    this.#usable()
    options.signal.throwIfAborted()
    await this.#orOver(this.parts.beforeExec(options.signal))
    await this.#orOver(this.kernel.thawed())
    this.#usable()
    options.signal.throwIfAborted()
    if (spec.tty !== undefined && !this.parts.features.tty) throw unsupported('a terminal')
    return new MemoryExec(this.#spawn(spec, io), this, io, options.signal).handle
  }

  async copyIn(path: string, tar: AsyncIterable<Uint8Array>, options: { readonly signal: AbortSignal }): Promise<void> {
    this.#usable()
    checkPath(path)
    const bytes = await this.#orOver(collect(tar))
    options.signal.throwIfAborted()
    applyTar(this.tree, path, unpackTar(bytes), { whiteouts: false })
  }

  async *copyOut(path: string, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array> {
    this.#usable()
    checkPath(path)
    await Promise.resolve()
    try {
      const node = this.tree.lookup(path, '/', { followLast: false })
      const name = path.replace(/\/+$/, '').split('/').at(-1) ?? ''
      for await (const chunk of packTarStream(this.tree.entries(node, name))) {
        options.signal.throwIfAborted()
        this.#usable()
        yield chunk
      }
    } catch (error) {
      if (!(error instanceof GuestError)) throw error
      throw new FaasError('sandbox/file-error', { message: `${path} could not be read: ${error.message}.`, details: { reason: 'file', errno: ERRNO_NUMBER[error.errno], path }, cause: error })
    }
  }

  async pause(): Promise<void> {
    this.#usable()
    if (!this.parts.features.pause) throw unsupported('pausing')
    if (this.#life.state === 'paused') return
    this.#to('pausing')
    this.kernel.freeze()
    this.#to('paused')
    await Promise.resolve()
  }

  async resume(): Promise<void> {
    this.#usable()
    if (!this.parts.features.pause) throw unsupported('pausing')
    if (this.#life.state !== 'paused') return
    this.#to('resuming')
    this.kernel.thaw()
    this.#to('ready')
    await Promise.resolve()
  }

  async stats(): Promise<SandboxStats> {
    this.#usable()
    const { kernel } = this
    return Promise.resolve({
      cpuMs: kernel.cpuMs, memoryBytes: kernel.memoryBytes, memoryPeakBytes: kernel.memoryPeakBytes, pids: kernel.procs.size + 1,
      writableBytes: this.tree.addedBytes, oomKills: kernel.oomKills,
    })
  }

  async updateLimits(limits: SandboxLimits): Promise<void> {
    this.#usable()
    if (!this.parts.features.resizeLimits) throw unsupported('changing limits')
    this.kernel.limits = { memoryBytes: limits.memoryBytes, pidsMax: limits.pidsMax }
    this.tree.quotaBytes = limits.writableBytesMax
    await Promise.resolve()
  }

  capability(action: SandboxAction): Promise<Capability> {
    const { features } = this.parts
    const can: Readonly<Record<SandboxAction, boolean>> = {
      pause: features.pause, checkpoint: false, retain: features.retain, copy: true, tty: features.tty, 'resize-limits': features.resizeLimits, expose: false,
    }
    return Promise.resolve(can[action] ? { can: true } : { can: false, why: `The in-memory runtime does not offer ${action}.` })
  }

  async retain(): Promise<RetainedState> {
    this.#usable()
    if (!this.parts.features.retain) throw unsupported('retaining files')
    const { tree, id, parts } = this
    const state: RetainedState = {
      sandboxId: id,
      sizeBytes: tree.addedBytes,
      export: () => packTarStream(tree.changes()),
      [Symbol.asyncDispose]: async () => {
        parts.onRelease(state)
        await Promise.resolve()
      },
    }
    parts.onRetain(state)
    await this[Symbol.asyncDispose]()
    return state
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#life.state === 'destroying' || this.#life.state === 'destroyed') return
    this.#to('destroying')
    this.#end(new FaasError('sandbox/destroyed', { message: 'The sandbox was destroyed.' }), { reason: 'destroyed', message: 'The sandbox was destroyed.' })
    this.#to('destroyed')
    this.parts.onEnd()
    await Promise.resolve()
  }

  /** Ends it the way a crash or the kernel's OOM killer would: its host resources stay until it is disposed of. */
  die(reason: 'lost' | 'oom' | 'disk_limit', message: string): void {
    if (this.#over !== undefined) return
    this.#to('lost')
    this.#end(new FaasError(LOSS_CODES[reason], { message }), { reason, message })
  }

  /** Calls `fail` when the sandbox ends before the returned function was called. */
  onOver(fail: (error: FaasError) => void): () => void {
    if (this.#over !== undefined) fail(this.#over)
    this.#failures.add(fail)
    return () => this.#failures.delete(fail)
  }

  #end(error: FaasError, exit: SandboxExit): void {
    if (this.#over !== undefined) return // I2
    this.#over = error
    for (const fail of [...this.#failures]) fail(error)
    this.kernel.killAll()
    this.#settleExited(exit)
  }

  async #orOver<T>(work: Promise<T>): Promise<T> {
    let stop: () => void = () => undefined
    const over = new Promise<never>((_, reject) => (stop = this.onOver(reject)))
    try {
      return await Promise.race([work, over])
    } finally {
      stop()
    }
  }

  #usable(): void {
    if (this.#over !== undefined) throw new FaasError(this.#over.code, { message: this.#over.message, cause: this.#over })
  }

  #to(next: SandboxState): void {
    this.#life = transition(SANDBOX_STATES, this.#life, next) // I1
  }

  #spawn(spec: ExecSpec, io: ExecIo): Spawned {
    const user = userOf(this.tree, spec.user)
    const cwd = spec.cwd ?? '/'
    const env = new Map(Object.entries(spec.env))
    if (!this.tree.exists(cwd) || this.tree.lookup(cwd).type !== 'dir') throw spawnFailed('bad-cwd', `There is no directory ${cwd} in the sandbox.`)
    try {
      checkArguments(spec)
      const output = new Output(io)
      const out = (stream: 'stdout' | 'stderr'): OpenFile => new OpenFile({ write: (bytes) => output.send(stream, bytes) })
      const terminal = spec.tty === undefined ? undefined : new Terminal(spec.tty.cols, spec.tty.rows, (bytes) => output.send('stdout', bytes))
      const pipe = terminal === undefined && spec.stdin !== undefined && spec.stdin !== 'none' ? new BytePipe() : undefined
      const tty = terminal?.open()
      const fds = new Map<number, OpenFile>([[0, tty ?? pipe?.reader ?? nullFile()], [1, tty?.dup() ?? out('stdout')], [2, tty?.dup() ?? out('stderr')]])
      const cwdReal = this.tree.realpath(cwd)
      const program: Program = (proc) => {
        const found = this.parts.resolve(proc, proc.argv[0] ?? '')
        return typeof found === 'function' ? found(proc) : Promise.resolve(127)
      }
      this.#checkProgram(spec, env, cwdReal)
      const proc = this.kernel.spawn({ argv: spec.argv, program, env, cwd: cwdReal, user, fds, newGroup: true })
      if (terminal !== undefined) terminal.onInterrupt = () => void this.kernel.kill(-proc.pid, 'SIGINT')
      if (spec.stdin instanceof Uint8Array) void feed(spec.stdin, pipe, terminal)
      return { proc, output, terminal, pipe }
    } catch (error) {
      if (!(error instanceof GuestError)) throw error
      throw spawnFailed(SPAWN_REASONS[error.errno] ?? 'exec-failed', `${error.path ?? spec.argv[0] ?? ''}: ${error.message}`, error)
    }
  }

  #checkProgram(spec: ExecSpec, env: ReadonlyMap<string, string>, cwd: string): void {
    const found = this.parts.resolve({ env, cwd, kernel: this.kernel } as Proc, spec.argv[0] ?? '')
    if (found === undefined) throw new GuestError('ENOENT', spec.argv[0])
    if (found === 'denied') throw new GuestError('EACCES', spec.argv[0])
  }
}

interface Spawned {
  readonly proc: Proc
  readonly output: Output
  readonly terminal: Terminal | undefined
  readonly pipe: BytePipe | undefined
}

/** Hands output over one piece at a time; a writer waits until its piece was taken. */
class Output {
  #tail: Promise<void> = Promise.resolve()
  onFailure: (error: unknown) => void = () => undefined

  constructor(private readonly io: ExecIo) {}

  send(stream: 'stdout' | 'stderr', bytes: Uint8Array): Promise<void> {
    const copy = bytes.slice()
    this.#tail = this.#tail.then(() => this.io.onOutput(stream, copy)).catch((error: unknown) => this.onFailure(error))
    return this.#tail
  }

  drained(): Promise<void> {
    return this.#tail
  }
}

class MemoryExec {
  readonly handle: ExecHandle

  constructor(spawned: Spawned, sandbox: MemorySandbox, io: ExecIo, signal: AbortSignal) {
    const { proc, output, terminal, pipe } = spawned
    const { kernel } = sandbox
    const startMs = kernel.clock.monotonicMs()
    const oomBefore = kernel.oomKills
    const failed = new Promise<never>((_, reject) => {
      const fail = (error: unknown): void => {
        kernel.kill(-proc.pid, 'SIGKILL')
        reject(error as Error)
      }
      output.onFailure = fail
      const onAbort = (): void => fail(signal.reason instanceof FaasError ? signal.reason : new FaasError('execution/cancelled', { message: 'The execution was cancelled.', cause: signal.reason }))
      signal.addEventListener('abort', onAbort, { once: true })
      const stop = sandbox.onOver(fail)
      void proc.exit.then(() => {
        signal.removeEventListener('abort', onAbort)
        stop()
      })
    })
    const ended = (async (): Promise<ExecExit> => {
      const status = await proc.exit
      await output.drained()
      return {
        exitCode: status.code, signal: status.signal, oomKilled: kernel.oomKills > oomBefore,
        usage: { userCpuMs: proc.cpuMs, systemCpuMs: 0, maxRssBytes: proc.peakBytes, wallMs: kernel.clock.monotonicMs() - startMs },
      }
    })()
    const result = Promise.race([failed, ended])
    result.catch(() => undefined) // Whoever calls `wait` hears of it.
    void io
    this.handle = {
      pid: proc.pid,
      wait: () => result,
      writeStdin: async (bytes) => {
        if (terminal !== undefined) await terminal.type(bytes)
        else if (pipe !== undefined) await Promise.race([pipe.writer.write(bytes), proc.exit])
        else throw new FaasError('execution/not-running', { message: 'This execution has no input to write to.' })
      },
      closeStdin: async () => {
        terminal?.hangUp()
        pipe?.writer.close()
        await Promise.resolve()
      },
      kill: async (name) => {
        if (!(name in SIGNALS)) throw new FaasError('request/invalid', { message: `${name} is not a signal.` })
        kernel.kill(-proc.pid, name)
        await Promise.resolve()
      },
      resize: async (cols, rows) => {
        if (terminal === undefined) throw unsupported('resizing without a terminal')
        terminal.cols = cols
        terminal.rows = rows
        kernel.kill(-proc.pid, 'SIGWINCH')
        await Promise.resolve()
      },
    }
  }
}

async function feed(bytes: Uint8Array, pipe: BytePipe | undefined, terminal: Terminal | undefined): Promise<void> {
  try {
    if (terminal !== undefined) await terminal.type(bytes)
    else if (bytes.length > 0) await pipe?.writer.write(bytes)
  } catch {
    // The program ended without reading all of its input, which is its right.
  }
  pipe?.writer.close()
}

function userOf(tree: FileTree, user: string | undefined): { uid: number; gid: number } {
  if (user === undefined || user === '') return { uid: 0, gid: 0 }
  const [name = '', group] = user.split(':')
  const rows = (file: string): string[][] => (tree.exists(file) ? text(tree.readFile(file)).split('\n').map((line) => line.split(':')) : [])
  const row = rows('/etc/passwd').find((fields) => fields[0] === name || fields[2] === name)
  const uid = /^\d+$/.test(name) ? Number(name) : row === undefined ? undefined : Number(row[2])
  const groupRow = group === undefined ? undefined : rows('/etc/group').find((fields) => fields[0] === group)
  const gid = group === undefined ? Number(row?.[3] ?? 0) : /^\d+$/.test(group) ? Number(group) : groupRow === undefined ? undefined : Number(groupRow[2])
  if (uid === undefined || gid === undefined) throw spawnFailed('unknown-user', `There is no user ${user} in the sandbox.`)
  return { uid, gid }
}

function checkArguments(spec: ExecSpec): void {
  const strings = [...spec.argv, ...Object.entries(spec.env).map(([name, value]) => `${name}=${value}`)]
  const sizes = strings.map((one) => Buffer.byteLength(one) + 1)
  if (sizes.some((size) => size > ARGUMENT_BYTES_MAX) || sizes.reduce((sum, size) => sum + size + 8, 0) > ARGUMENTS_BYTES_MAX) throw new GuestError('E2BIG', spec.argv[0])
}

function checkPath(path: string): void {
  if (!path.startsWith('/') || path.includes('\0')) throw new FaasError('sandbox/path-invalid', { message: 'The path must be absolute.', details: { path } })
}

/** Named as the guest agent's protocol names them. */
type SpawnReason = 'command-not-found' | 'not-executable' | 'bad-cwd' | 'unknown-user' | 'arguments-too-big' | 'no-resources' | 'exec-failed'
const SPAWN_REASONS: Partial<Record<Errno, SpawnReason>> = { ENOENT: 'command-not-found', EACCES: 'not-executable', E2BIG: 'arguments-too-big', EAGAIN: 'no-resources' }

function spawnFailed(reason: SpawnReason, message: string, cause?: GuestError): FaasError {
  return new FaasError('execution/spawn-failed', { message, details: { reason, ...(cause === undefined ? {} : { errno: ERRNO_NUMBER[cause.errno] }) }, cause })
}

function unsupported(what: string): FaasError {
  return new FaasError('runtime/unsupported', { message: `The runtime does not offer ${what}.` })
}
