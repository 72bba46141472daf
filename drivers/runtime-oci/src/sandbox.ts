/**
 * A live sandbox of runc, crun or gVisor.
 *
 * I1. Numbers and the reason of its end come from the host's cgroup, never from the guest.
 * I2. Disposal runs once whoever asks, under its own deadline, and leaves nothing.
 */
import type { AgentClient } from '@faas-platform/agent-client'
import {
  COMMAND_OOM_SCORE_ADJ, FaasError, isFaasError, type Capability, type ErrorCode, type ExecHandle, type ExecIo, type ExecSpec, type LogSink, type RetainedState,
  type RuntimeName, type Sandbox, type SandboxAction, type SandboxExit, type SandboxId, type SandboxLimits, type SandboxSpec,
  type SandboxStats, type TimeBudget,
} from '@faas-platform/core'
import type { CgroupHost, HostKit } from '@faas-platform/host'
import { ExecWithOom } from './exec-handle.js'
import { ExitWatch } from './exit-watch.js'
import { freeze } from './freeze.js'
import type { SandboxPaths } from './layout.js'
import { retainUpper } from './retained.js'
import { guardStep, teardown } from './teardown.js'

/** Entries counted for `writableBytes` before the count is called incomplete. */
const USAGE_ENTRIES_MAX = 1_000_000

const KILL_DEADLINE_MS = 10_000

const EXIT_CODES = {
  destroyed: 'sandbox/destroyed', oom: 'sandbox/oom', disk_limit: 'execution/disk-limit', lost: 'sandbox/lost',
} as const satisfies Record<SandboxExit['reason'], ErrorCode>

export interface SandboxParts {
  readonly spec: SandboxSpec
  readonly runtime: RuntimeName
  readonly paths: SandboxPaths
  /** Where the writable layer goes when it is retained. */
  readonly retainedPath: string
  /** Its first process, as the host numbers it. */
  readonly mainPid: number
  readonly agent: AgentClient
  readonly hostkit: HostKit
  readonly hostkitPath: string
  readonly cgroups: CgroupHost
  readonly log: LogSink
  readonly timeBudget: TimeBudget
  /** Whether the kernel of the host counts the OOM kills of single commands. */
  readonly commandsVisible: boolean
  /** The runtime's own needs added. */
  readonly cgroupLimits: (limits: SandboxLimits) => SandboxLimits
  /** Frees what is shared with other sandboxes (image lease, network). */
  readonly release: () => Promise<void>
}

export class OciSandbox implements Sandbox {
  readonly id: SandboxId
  readonly runtime: RuntimeName
  readonly spec: SandboxSpec
  readonly timeBudget: TimeBudget
  readonly exited: Promise<SandboxExit>
  readonly #parts: SandboxParts
  readonly #watch = new ExitWatch()
  readonly #stopListening: () => void
  readonly #stopGuarding: () => void
  #end: Promise<unknown> | null = null
  #paused = false
  #writableBytesMax: number

  constructor(parts: SandboxParts) {
    this.#parts = parts
    this.#writableBytesMax = parts.spec.limits.writableBytesMax
    this.id = parts.spec.id
    this.runtime = parts.runtime
    this.spec = parts.spec
    this.timeBudget = parts.timeBudget
    this.exited = this.#watch.exited
    this.#stopListening = parts.hostkit.onProcessExit(parts.mainPid, () => this.#lost('Its first process ended.'))
    this.#stopGuarding = parts.hostkit.onEvent((event) => {
      if (event.event === 'over-limit' && event.id === this.id) void this.#endForDisk(event.bytes)
      if (event.event === 'restarted') void this.#guard(this.#writableBytesMax)
    })
    void parts.agent.closed.then((error) => this.#lost(error?.message ?? 'The connection to its agent was closed.'))
  }

  async exec(spec: ExecSpec, io: ExecIo, options: { readonly signal: AbortSignal }): Promise<ExecHandle> {
    this.#check()
    const oomBefore = this.#oomKills()
    try {
      const exec = await this.#parts.agent.exec(spec, io, { signal: options.signal, oomScoreAdj: COMMAND_OOM_SCORE_ADJ })
      return new ExecWithOom(exec, () => this.#oomKills() > oomBefore, (error) => this.#explain(error))
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  async copyIn(path: string, tar: AsyncIterable<Uint8Array>, options: { readonly signal: AbortSignal }): Promise<void> {
    this.#check()
    checkPath(path)
    try {
      await this.#parts.agent.copyIn(path, tar, options)
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  async *copyOut(path: string, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array> {
    this.#check()
    checkPath(path)
    try {
      yield* this.#parts.agent.copyOut(path, options)
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  async pause(): Promise<void> {
    if (this.#paused) return
    this.#check()
    await freeze(this.#parts.hostkit, this.#parts.cgroups, this.#parts.paths.cgroup, true)
    this.#paused = true
  }

  async resume(): Promise<void> {
    if (this.#watch.exit !== null) throw this.#gone(this.#watch.exit)
    await freeze(this.#parts.hostkit, this.#parts.cgroups, this.#parts.paths.cgroup, false)
    this.#paused = false
  }

  async stats(): Promise<SandboxStats> {
    if (this.#watch.exit !== null) throw this.#gone(this.#watch.exit)
    const { cgroups, hostkit, paths } = this.#parts
    const [usage, files] = await Promise.all([
      cgroups.usage(paths.cgroup),
      hostkit.call('usage', paths.upper, USAGE_ENTRIES_MAX, Number.MAX_SAFE_INTEGER),
    ])
    const writable = JSON.parse(files) as { readonly bytes: number }
    return { ...usage, writableBytes: writable.bytes }
  }

  async updateLimits(limits: SandboxLimits): Promise<void> {
    this.#check()
    const { cgroups, hostkit, paths } = this.#parts
    await hostkit.run([
      ...cgroups.limits(paths.cgroup, this.#parts.cgroupLimits(limits)).map(([file, value]) => ['control', file, value] as const),
      guardStep(this.id, paths, cgroups, limits.writableBytesMax),
    ])
    this.#writableBytesMax = limits.writableBytesMax
  }

  async capability(action: SandboxAction): Promise<Capability> {
    if (this.#watch.exit !== null) return { can: false, why: this.#watch.exit.message }
    switch (action) {
      case 'checkpoint':
        return { can: false, why: 'This driver does not take checkpoints.' }
      case 'expose':
        return { can: false, why: 'This driver does not expose ports.' }
      default:
        return { can: true }
    }
  }

  async retain(): Promise<RetainedState> {
    if (this.#end !== null) throw new FaasError('sandbox/destroyed', { message: 'The sandbox was destroyed before its files could be kept.' })
    const { hostkit, hostkitPath, retainedPath, paths } = this.#parts
    const retained = retainUpper({ id: this.id, upper: paths.upper, path: retainedPath, hostkit, hostkitPath })
    this.#end = this.#destroy(retained.steps)
    await this.#end
    return retained.state()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end ??= this.#destroy([])
    await this.#end
  }

  async #destroy(keep: Parameters<typeof teardown>[0]['keep']): Promise<void> {
    const { agent, hostkit, cgroups, paths, log } = this.#parts
    this.#watch.end({ reason: 'destroyed', message: 'The sandbox was destroyed.' })
    this.#stopListening()
    this.#stopGuarding()
    try {
      await agent.close()
      await teardown({ id: this.id, hostkit, cgroups, paths, log, ...(keep === undefined ? {} : { keep }) })
    } finally {
      await this.#parts.release()
    }
  }

  async #guard(bytesMax: number): Promise<void> {
    if (this.#watch.exit !== null) return
    const { hostkit, cgroups, paths, log } = this.#parts
    try {
      await hostkit.run([guardStep(this.id, paths, cgroups, bytesMax)])
    } catch (error) {
      log.error({ sandbox: this.id, error: String(error) }, 'the disk limit of a sandbox is not watched')
    }
  }

  /** Ends the processes; directories and cgroups stay for whoever owns the sandbox to look at, retain or dispose. */
  async #endForDisk(bytes: number): Promise<void> {
    if (this.#watch.exit !== null) return
    const { hostkit, cgroups, paths, agent, log } = this.#parts
    this.#watch.end({ reason: 'disk_limit', message: `The sandbox wrote ${bytes} bytes; its limit is ${this.#writableBytesMax}.` })
    log.info({ sandbox: this.id, bytes }, 'a sandbox is ended for its disk limit')
    await hostkit.call('cgroup-kill', KILL_DEADLINE_MS, cgroups.processDirectory(paths.cgroup)).catch((error: unknown) => {
      log.error({ sandbox: this.id, error: String(error) }, 'a sandbox over its disk limit could not be ended')
    })
    await agent.close()
  }

  #oomKills(): number {
    return this.#parts.commandsVisible ? this.#parts.cgroups.oomKills(this.#parts.paths.cgroup) : 0
  }

  #lost(how: string): void {
    if (this.#watch.exit !== null) return
    const oom = this.#parts.cgroups.oomKills(this.#parts.paths.cgroup) > 0
    this.#watch.end(
      oom
        ? { reason: 'oom', message: `The sandbox ran out of its ${this.spec.limits.memoryBytes} bytes of memory.` }
        : { reason: 'lost', message: `The sandbox ended by itself. ${how}` },
    )
  }

  #check(): void {
    const exit = this.#watch.exit
    if (exit !== null) throw this.#gone(exit)
    if (this.#paused) throw new FaasError('instance/wrong-state', { message: 'The sandbox is paused.', hint: 'Resume it first.' })
  }

  #gone(exit: SandboxExit): FaasError {
    return new FaasError(EXIT_CODES[exit.reason], { message: exit.message })
  }

  /** A broken connection is a consequence; the sandbox's own end says more. */
  async #explain(error: unknown): Promise<unknown> {
    if (!isFaasError(error, 'agent/disconnected')) return error
    const exit = await this.exited
    const gone = this.#gone(exit)
    return new FaasError(gone.code, { message: gone.message, cause: error })
  }
}

function checkPath(path: string): void {
  if (!path.startsWith('/')) throw new FaasError('sandbox/path-invalid', { message: 'A path in a sandbox must be absolute.' })
}
