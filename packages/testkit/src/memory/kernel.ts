/**
 * Processes of one in-memory sandbox: a tree with groups, signals, limits and a freezer.
 * A program is an async function; it can only be stopped where it asks the kernel for something, which is everywhere
 * it reads, writes, waits or computes for long.
 *
 * I1. Never more than `pidsMax` processes; never more charged memory than `memoryBytes`.
 * I2. A process that ended does nothing any more: its next request throws `Killed`.
 */
import type { Clock } from '@faas-platform/core'
import { GuestError, type FileTree } from './file-tree.js'
import { BrokenPipe, OpenFile } from './io.js'

export const SIGNALS: Readonly<Record<string, number>> = {
  SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGABRT: 6, SIGKILL: 9, SIGUSR1: 10, SIGSEGV: 11, SIGUSR2: 12, SIGPIPE: 13,
  SIGALRM: 14, SIGTERM: 15, SIGCHLD: 17, SIGCONT: 18, SIGSTOP: 19, SIGTSTP: 20, SIGWINCH: 28,
}
const IGNORED_BY_DEFAULT = new Set(['SIGCHLD', 'SIGCONT', 'SIGWINCH'])
/** Commands between two turns of the event loop. */
const TICKS_PER_TURN = 32
/** What one step of a program is counted as, ms of CPU. */
const TICK_CPU_MS = 0.02
const PROCESS_BYTES = 256 * 1024

export class Killed extends Error {}

export interface ExitStatus {
  readonly code: number | null
  readonly signal: string | null
}

export type Program = (proc: Proc) => Promise<number>

export interface SpawnOptions {
  readonly argv: readonly string[]
  readonly program: Program
  readonly env: ReadonlyMap<string, string>
  readonly cwd: string
  readonly user: { readonly uid: number; readonly gid: number }
  /** Owned by the new process. */
  readonly fds: ReadonlyMap<number, OpenFile>
  readonly parent?: Proc | undefined
  readonly newGroup?: boolean
  readonly ignored?: ReadonlySet<string>
}

export class Proc {
  readonly exit: Promise<ExitStatus>
  readonly handlers = new Map<string, string>()
  readonly pendingTraps: string[] = []
  status: ExitStatus | undefined
  rssBytes = PROCESS_BYTES
  peakBytes = PROCESS_BYTES
  cpuMs = 0
  argv: readonly string[]
  cwd: string
  env: Map<string, string>
  readonly user: { readonly uid: number; readonly gid: number }
  readonly fds: Map<number, OpenFile>
  readonly group: number
  readonly ignored: Set<string>
  #ended!: (status: ExitStatus) => void
  #stopWaiting!: (reason: Killed) => void
  readonly #death: Promise<never>
  #ticks = 0

  constructor(readonly kernel: Kernel, readonly pid: number, readonly parentPid: number, options: SpawnOptions) {
    this.argv = options.argv
    this.cwd = options.cwd
    this.env = new Map(options.env)
    this.user = options.user
    this.fds = new Map(options.fds)
    this.ignored = new Set(options.ignored)
    this.group = options.newGroup === true || options.parent === undefined ? pid : options.parent.group
    this.exit = new Promise((resolve) => (this.#ended = resolve))
    this.#death = new Promise((_, reject) => (this.#stopWaiting = reject))
    this.#death.catch(() => undefined) // Nobody may be waiting when it dies.
  }

  /** Waits for `work`, unless the process dies first; then for the freezer. */
  async block<T>(work: Promise<T>): Promise<T> {
    this.#alive()
    const value = await Promise.race([work, this.#death])
    await this.kernel.thawed()
    this.#alive()
    return value
  }

  /** One step of computing. */
  async tick(): Promise<void> {
    this.#alive()
    this.cpuMs += TICK_CPU_MS
    this.kernel.cpuMs += TICK_CPU_MS
    if (++this.#ticks % TICKS_PER_TURN === 0 || this.kernel.isFrozen) await this.block(new Promise<void>((resolve) => setImmediate(resolve)))
  }

  read(fd: number): Promise<Uint8Array | null> {
    return this.block(this.#file(fd).read())
  }

  write(fd: number, bytes: Uint8Array): Promise<void> {
    return this.block(this.#file(fd).write(bytes))
  }

  sleep(ms: number): Promise<void> {
    return this.block(this.kernel.clock.delay(ms))
  }

  /** Charges memory as if it were touched. */
  touchMemory(bytes: number): void {
    this.kernel.charge(this, bytes)
    this.#alive()
  }

  setFd(fd: number, file: OpenFile): void {
    this.fds.get(fd)?.close()
    this.fds.set(fd, file)
  }

  finish(status: ExitStatus): void {
    if (this.status !== undefined) return
    this.status = status
    for (const file of this.fds.values()) file.close()
    this.fds.clear()
    this.#stopWaiting(new Killed())
    this.#ended(status)
  }

  #file(fd: number): OpenFile {
    this.#alive()
    return this.fds.get(fd) ?? badFd()
  }

  #alive(): void {
    if (this.status !== undefined) throw new Killed() // I2
  }
}

export class Kernel {
  readonly procs = new Map<number, Proc>()
  cpuMs = 0
  memoryPeakBytes = 0
  oomKills = 0
  isFrozen = false
  #nextPid = 2
  #thaw: (() => void) | undefined
  #frozen: Promise<void> = Promise.resolve()
  onOom: (victim: Proc) => void = () => undefined

  constructor(readonly clock: Clock, readonly tree: FileTree, readonly hostname: string, public limits: { memoryBytes: number; pidsMax: number }) {}

  get memoryBytes(): number {
    let sum = 0
    for (const proc of this.procs.values()) sum += proc.rssBytes
    return sum
  }

  spawn(options: SpawnOptions): Proc {
    if (this.procs.size >= this.limits.pidsMax) {
      for (const file of options.fds.values()) file.close()
      throw new GuestError('EAGAIN') // I1
    }
    const proc = new Proc(this, this.#nextPid++, options.parent?.pid ?? 1, options)
    this.procs.set(proc.pid, proc)
    this.memoryPeakBytes = Math.max(this.memoryPeakBytes, this.memoryBytes)
    void this.#run(proc, options.program)
    return proc
  }

  charge(proc: Proc, bytes: number): void {
    if (this.memoryBytes + bytes > this.limits.memoryBytes) {
      this.memoryPeakBytes = this.limits.memoryBytes
      const victim = [...this.procs.values()].reduce((worst, one) => (one.rssBytes > worst.rssBytes ? one : worst), proc)
      this.oomKills++
      this.onOom(victim)
      this.#end(victim, { code: null, signal: 'SIGKILL' })
      return
    }
    proc.rssBytes += bytes
    proc.peakBytes = Math.max(proc.peakBytes, proc.rssBytes)
    this.memoryPeakBytes = Math.max(this.memoryPeakBytes, this.memoryBytes)
  }

  /** Sends to one process (`pid > 0`) or a group (`pid < 0`). False when there is none. */
  kill(pid: number, signal: string): boolean {
    const targets = [...this.procs.values()].filter((proc) => (pid > 0 ? proc.pid === pid : proc.group === -pid))
    for (const proc of targets) this.#deliver(proc, signal)
    return targets.length > 0
  }

  killAll(): void {
    this.thaw()
    for (const proc of [...this.procs.values()]) this.#end(proc, { code: null, signal: 'SIGKILL' })
  }

  freeze(): void {
    if (this.isFrozen) return
    this.isFrozen = true
    this.#frozen = new Promise((resolve) => (this.#thaw = resolve))
  }

  thaw(): void {
    this.isFrozen = false
    this.#thaw?.()
    this.#thaw = undefined
  }

  thawed(): Promise<void> {
    return this.isFrozen ? this.#frozen : Promise.resolve()
  }

  #deliver(proc: Proc, signal: string): void {
    if (signal !== 'SIGKILL' && (proc.ignored.has(signal) || signal === 'SIGSTOP' || signal === 'SIGTSTP')) return
    const handler = signal === 'SIGKILL' ? undefined : proc.handlers.get(signal)
    if (handler !== undefined) proc.pendingTraps.push(handler)
    else if (!IGNORED_BY_DEFAULT.has(signal)) this.#end(proc, { code: null, signal })
  }

  #end(proc: Proc, status: ExitStatus): void {
    this.procs.delete(proc.pid)
    proc.finish(status)
  }

  async #run(proc: Proc, program: Program): Promise<void> {
    try {
      // A turn later, so that whoever spawned it has its handle first.
      await proc.block(new Promise<void>((resolve) => setImmediate(resolve)))
      const code = await program(proc)
      this.#end(proc, { code: code & 255, signal: null })
    } catch (error) {
      if (error instanceof Killed) return
      if (error instanceof BrokenPipe) {
        this.#deliver(proc, 'SIGPIPE')
        this.#end(proc, { code: 1, signal: null })
        return
      }
      // A program that throws anything else has crashed; say so where a guest would.
      this.#end(proc, { code: null, signal: error instanceof GuestError ? 'SIGABRT' : 'SIGSEGV' })
      if (!(error instanceof GuestError)) throw error
    }
  }
}

function badFd(): never {
  throw new GuestError('EINVAL')
}
