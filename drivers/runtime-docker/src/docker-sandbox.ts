/**
 * One container with a connected agent.
 *
 * I1. `exited` settles exactly once; whatever is pending then fails with the reason of the end, not with a broken wire.
 * I2. Disposal ends every process and frees everything; it is safe to repeat, and a failed one can be tried again.
 * I3. Why a sandbox ended is decided by the host's and the engine's figures, never by what the guest says.
 */
import type { AgentClient, AgentExecExit } from '@faas-platform/agent-client'
import {
  COMMAND_OOM_SCORE_ADJ, FaasError,
  type Capability, type Clock, type ExecExit, type ExecHandle, type ExecIo, type ExecSpec, type LogSink, type RetainedState, type Sandbox, type SandboxAction,
  type SandboxExit, type SandboxLimits, type SandboxSpec, type SandboxStats, type TimeBudget,
} from '@faas-platform/core'
import type { AttachStream } from './attach-stream.js'
import { limitFields } from './container-config.js'
import { DiskGuard } from './disk-guard.js'
import { inspectContainer, killContainer, pauseContainer, removeContainer, updateContainer, waitUntilStopped } from './engine-calls.js'
import type { EngineClient } from './engine-client.js'
import { isEngineStatus, toDriverError } from './engine-error.js'
import { flag, number, sub } from './engine-shape.js'
import { engineStats } from './engine-stats.js'
import type { HostView } from './host-view.js'
import { RetainedContainer } from './retained-container.js'

const REMOVE_DEADLINE_MS = 30_000
const STOP_DEADLINE_MS = 10_000
/** How long a container may still count as running after its first process, the agent, has hung up. */
const EXIT_GRACE_MS = 3_000

export interface DockerSandboxParts {
  readonly spec: SandboxSpec
  readonly containerId: string
  readonly client: EngineClient
  readonly agent: AgentClient
  /** The attach connection, where that is the agent's: it holds what the runtime said. */
  readonly attach: AttachStream | null
  readonly host: HostView | null
  /** Bytes in the writable layer. */
  readonly measure: (enoughBytes: number) => Promise<number>
  readonly timeBudget: TimeBudget
  /** What the guest writes reaches the engine's layer. */
  readonly retainable: boolean
  readonly clock: Clock
  readonly log: LogSink
  /** Runs before the container, and with it its address, is given up. */
  readonly onEnding: () => Promise<void>
  /** Called when nothing of it is left. */
  readonly onGone: () => void
  /** Called when it became a retained state. */
  readonly onRetained: () => void
}

const WHY_NOT_RETAINED = 'This OCI runtime keeps written files in a memory of its own, which ends with the sandbox.'

const OVER_CODES = { destroyed: 'sandbox/destroyed', oom: 'sandbox/oom', disk_limit: 'execution/disk-limit', lost: 'sandbox/lost' } as const

export class DockerSandbox implements Sandbox {
  readonly runtime = 'docker'
  readonly exited: Promise<SandboxExit>
  readonly #parts: DockerSandboxParts
  readonly #guard: DiskGuard
  #limits: SandboxLimits
  #settleExited!: (exit: SandboxExit) => void
  #over: SandboxExit | undefined
  /** Set before the container is ended on purpose, so that the lost connection is not taken for a failure. */
  #ending: SandboxExit | undefined
  #disposing: Promise<void> | undefined

  constructor(parts: DockerSandboxParts) {
    this.#parts = parts
    this.#limits = parts.spec.limits
    this.exited = new Promise((resolve) => {
      this.#settleExited = resolve
    })
    this.#guard = new DiskGuard({
      measure: parts.measure,
      limitBytes: () => this.#limits.writableBytesMax,
      onOverLimit: (bytes) => void this.#endOverLimit(bytes),
      clock: parts.clock,
      log: parts.log,
    })
    void parts.agent.closed.then((error) => this.#onAgentGone(error))
  }

  get id(): SandboxSpec['id'] {
    return this.#parts.spec.id
  }

  get spec(): SandboxSpec {
    return this.#parts.spec
  }

  get timeBudget(): TimeBudget {
    return this.#parts.timeBudget
  }

  async exec(spec: ExecSpec, io: ExecIo, options: { readonly signal: AbortSignal }): Promise<ExecHandle> {
    this.#usable()
    this.#guard.start()
    const { agent, host } = this.#parts
    const oomBefore = host?.oomKills()
    const exec = await this.#explained(agent.exec(spec, io, { signal: options.signal, oomScoreAdj: COMMAND_OOM_SCORE_ADJ }))
    const ended = this.#explained(exec.wait()).then((exit) => this.#exit(exit, oomBefore))
    ended.catch(() => undefined) // the caller may not wait; it gets the same promise if it does
    return {
      pid: exec.pid,
      wait: () => ended,
      writeStdin: (bytes) => this.#explained(exec.writeStdin(bytes)),
      closeStdin: () => this.#explained(exec.closeStdin()),
      kill: (signal) => this.#explained(exec.kill(signal)),
      resize: (cols, rows) => this.#explained(exec.resize(cols, rows)),
    }
  }

  async copyIn(path: string, tar: AsyncIterable<Uint8Array>, options: { readonly signal: AbortSignal }): Promise<void> {
    this.#usable()
    checkPath(path)
    this.#guard.start()
    await this.#explained(this.#parts.agent.copyIn(path, tar, options))
  }

  async *copyOut(path: string, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array> {
    this.#usable()
    checkPath(path)
    try {
      yield* this.#parts.agent.copyOut(path, options)
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  pause(): Promise<void> {
    return this.#freeze('pause')
  }

  resume(): Promise<void> {
    return this.#freeze('unpause')
  }

  async stats(): Promise<SandboxStats> {
    this.#usable()
    const { client, containerId, host, measure } = this.#parts
    try {
      const [usage, writableBytes] = await Promise.all([host === null ? engineStats(client, containerId) : host.usage(), measure(Number.MAX_SAFE_INTEGER)])
      return { ...usage, writableBytes }
    } catch (error) {
      throw await this.#explain(toDriverError(error, 'sandbox/lost', 'The figures of the sandbox could not be read.'))
    }
  }

  async updateLimits(limits: SandboxLimits): Promise<void> {
    this.#usable()
    try {
      await updateContainer(this.#parts.client, this.#parts.containerId, limitFields(limits))
    } catch (error) {
      throw await this.#explain(toDriverError(error, 'runtime/unsupported', 'The Docker Engine did not accept the new limits.'))
    }
    this.#limits = limits
  }

  capability(action: SandboxAction): Promise<Capability> {
    const why: Partial<Record<SandboxAction, string>> = {
      checkpoint: 'This runtime does not take memory checkpoints yet.',
      expose: 'This runtime does not expose ports yet.',
      ...(this.#parts.retainable ? {} : { retain: WHY_NOT_RETAINED }),
    }
    const reason = this.#over === undefined ? why[action] : `The sandbox is over: ${this.#over.message}`
    return Promise.resolve(reason === undefined ? { can: true } : { can: false, why: reason })
  }

  async retain(): Promise<RetainedState> {
    this.#usable()
    const { client, containerId } = this.#parts
    if (!this.#parts.retainable) throw new FaasError('runtime/unsupported', { message: WHY_NOT_RETAINED })
    this.#ending = { reason: 'destroyed', message: 'The sandbox was ended and its files were kept.' }
    this.#guard.stop()
    try {
      await this.#parts.onEnding()
      await killContainer(client, containerId)
      await waitUntilStopped(client, containerId, STOP_DEADLINE_MS)
    } catch (error) {
      throw toDriverError(error, 'sandbox/lost', 'The sandbox could not be ended in an orderly way.')
    } finally {
      await this.#hangUp()
      this.#finish(this.#ending)
    }
    const sizeBytes = await this.#parts.measure(Number.MAX_SAFE_INTEGER).catch((error: unknown) => {
      throw toDriverError(error, 'sandbox/lost', 'The kept files could not be measured.')
    })
    this.#disposing = Promise.resolve() // the container belongs to the retained state from now on
    this.#parts.onRetained()
    return new RetainedContainer({ client, containerId, sandboxId: this.id, sizeBytes, remove: () => this.#remove() })
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#disposing ??= this.#dispose().catch((error: unknown) => {
      this.#disposing = undefined // I2
      throw error
    })
    return this.#disposing
  }

  async #dispose(): Promise<void> {
    this.#ending ??= { reason: 'destroyed', message: 'The sandbox was destroyed.' }
    this.#guard.stop()
    const removing = this.#parts.onEnding().then(() => this.#remove())
    await this.#hangUp()
    this.#finish(this.#ending)
    await removing
  }

  async #remove(): Promise<void> {
    const { client, containerId, clock, onGone } = this.#parts
    try {
      await removeContainer(client, containerId, { deadlineMs: REMOVE_DEADLINE_MS, delay: (ms) => clock.delay(ms), nowMs: () => clock.monotonicMs() })
    } catch (error) {
      throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine could not remove the container of a sandbox.')
    }
    onGone()
  }

  async #hangUp(): Promise<void> {
    await this.#parts.agent.close()
  }

  async #freeze(wanted: 'pause' | 'unpause'): Promise<void> {
    this.#usable()
    const { client, containerId } = this.#parts
    try {
      await pauseContainer(client, containerId, wanted)
    } catch (error) {
      // The wanted state already: "is already paused", "is not paused".
      if (isEngineStatus(error, 409, 500) && /already paused|not paused/i.test(error.message)) return
      throw await this.#explain(toDriverError(error, 'sandbox/lost', `The sandbox could not be ${wanted === 'pause' ? 'paused' : 'resumed'}.`))
    }
  }

  async #endOverLimit(bytes: number): Promise<void> {
    if (this.#ending !== undefined || this.#over !== undefined) return
    const { client, containerId, log } = this.#parts
    this.#ending = { reason: 'disk_limit', message: 'The sandbox wrote more than its limit and was ended.' }
    log.info({ sandboxId: this.id, bytes, limitBytes: this.#limits.writableBytesMax }, 'sandbox over its disk limit')
    try {
      await killContainer(client, containerId)
    } catch (error) {
      log.error({ sandboxId: this.id, error }, 'a sandbox over its disk limit could not be ended')
    }
    await this.#hangUp()
    this.#finish(this.#ending)
  }

  /** The agent is the container's first process: without it there is no sandbox. */
  async #onAgentGone(error: FaasError | null): Promise<void> {
    if (this.#over !== undefined) return
    this.#guard.stop()
    const exit = this.#ending ?? (await this.#autopsy(error))
    this.#finish(this.#ending ?? exit)
  }

  /** I3 */
  async #autopsy(error: FaasError | null): Promise<SandboxExit> {
    const { client, containerId, attach, log } = this.#parts
    const lost = (message: string): SandboxExit => ({ reason: 'lost', message })
    try {
      if (error?.code === 'agent/protocol-error') return lost('The guest agent broke its protocol.')
      await waitUntilStopped(client, containerId, EXIT_GRACE_MS)
      const state = sub(await inspectContainer(client, containerId), 'State')
      const exitCode = number(state, 'ExitCode')
      if (attach !== null && attach.notes !== '') log.warn({ sandboxId: this.id, exitCode, notes: attach.notes }, 'a sandbox ended by itself')
      if (flag(state, 'OOMKilled') && exitCode === 137) return { reason: 'oom', message: 'The sandbox ran out of memory.' }
      return lost(`The sandbox ended by itself (exit code ${exitCode}).`)
    } catch (failure) {
      log.warn({ sandboxId: this.id, error: failure }, 'the end of a sandbox could not be looked into')
      if (isEngineStatus(failure, 404)) return lost('The container of the sandbox was removed by somebody else.')
      return lost('The connection to the sandbox was lost.')
    }
  }

  #finish(exit: SandboxExit): void {
    if (this.#over !== undefined) return
    this.#over = exit
    this.#settleExited(exit) // I1
  }

  /** Waits for a call to the agent; when the sandbox ended under it, that is the reason it fails with. I1. */
  async #explained<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      throw await this.#explain(error)
    }
  }

  async #explain(error: unknown): Promise<unknown> {
    const broken = error instanceof FaasError && (error.code === 'agent/disconnected' || error.code === 'sandbox/lost')
    if (!broken || (error.code === 'sandbox/lost' && this.#over === undefined)) return error
    return overError(await this.exited, error)
  }

  #usable(): void {
    if (this.#over !== undefined) throw overError(this.#over)
    if (this.#ending !== undefined) throw overError(this.#ending)
  }

  /** The host's counter sees every process of the sandbox, also those the agent is not told about. */
  #exit(exit: AgentExecExit, oomBefore: number | undefined): ExecExit {
    const { exitCode, signal, usage } = exit
    const { host } = this.#parts
    const oomKilled = host === null || oomBefore === undefined ? exit.oomKilled : exit.oomKilled || host.oomKills() > oomBefore
    return { exitCode, signal, oomKilled, usage }
  }
}

function overError(exit: SandboxExit, cause?: unknown): FaasError {
  return new FaasError(OVER_CODES[exit.reason], { message: exit.message, cause })
}

function checkPath(path: string): void {
  if (!path.startsWith('/') || path.includes('\0')) throw new FaasError('sandbox/path-invalid', { message: 'A path in a sandbox must be absolute.', details: { path: path.slice(0, 300) } })
}
