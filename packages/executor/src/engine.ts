/**
 * Takes one accepted execution from its place in the queue to its result. The same for every mode.
 *
 * I1. `perform` never rejects: every end is a result.
 * I2. What was acquired is released exactly once, after the result is composed; the reply never waits for it.
 * I3. The phases of the time budget add up to the time `perform` took.
 */
import {
  FaasError, Stopwatch, toFaasError, type CapturedStream, type Clock, type ExecSpec, type ExecutionResult, type LogSink, type PullProgress,
  type SandboxStats, type TimeBudget,
} from '@faas-platform/core'
import type { Ticket } from './admission.js'
import type { ExecutorConfig } from './config.js'
import type { Disposer } from './disposer.js'
import type { LiveExecution } from './live-execution.js'
import type { Metrics } from './metrics.js'
import type { LeaseEnd, ModeTable, SandboxLease } from './modes.js'
import { verdictOf, verdictOfFailure, type Verdict } from './outcome.js'
import type { Progress } from './placement.js'
import { runCommand, type CommandEnd } from './run-command.js'
import { OVER } from './over.js'

const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const NOTHING: CapturedStream = { bytes: new Uint8Array(), totalBytes: 0, truncated: false }

export interface PerformOptions {
  readonly ticket: Ticket | Promise<Ticket>
  readonly onPullProgress?: ((progress: PullProgress) => void) | undefined
  /** Runs when the sandbox is there, before the command starts: what must be on disk before the effect. */
  readonly beforeStart?: () => Promise<void>
}

export interface EngineParts {
  readonly modes: ModeTable
  readonly config: ExecutorConfig
  readonly clock: Clock
  readonly log: LogSink
  readonly disposer: Disposer
  readonly metrics: Metrics
}

export class Engine {
  constructor(private readonly parts: EngineParts) {}

  async perform(live: LiveExecution, options: PerformOptions): Promise<ExecutionResult> {
    const { clock } = this.parts
    const progress: Progress = { watch: new Stopwatch(clock), signal: live.scope.signal, onPullProgress: options.onPullProgress, decision: null, image: null }
    const beganMs = clock.monotonicMs()
    let ticket: Ticket | null = null
    let lease: SandboxLease | null = null
    let result: ExecutionResult
    let statsAfter: SandboxStats | null = null
    let measured: Promise<SandboxStats | null> = Promise.resolve(null)
    let sandboxSpent = false
    try {
      ticket = options.ticket instanceof Promise ? await options.ticket : options.ticket
      progress.watch.lap('queue')
      live.scope.signal.throwIfAborted()
      live.become('starting')
      lease = await this.#acquire(live, progress)
      await options.beforeStart?.()
      const end = await this.#run(live, lease, progress)
      sandboxSpent = end.sandboxSpent
      if (!sandboxSpent) {
        measured = this.#stats(lease)
        statsAfter = await this.#inGoodTime(measured, end, progress)
      }
      const verdict = verdictOf(end, live.scope.message, statsAfter, live.request.limits.writableBytesMax)
      if (verdict.outcome === 'error') live.failure = end.error ?? new FaasError('sandbox/lost', { message: verdict.message ?? 'The command did not end.' })
      await this.#closeLog(live, end)
      result = this.#compose(live, verdict, { end, lease, progress, statsAfter })
    } catch (thrown) {
      const error = toFaasError(thrown)
      const verdict = verdictOfFailure(live.scope, error)
      if (verdict.outcome === 'error') live.failure = error
      sandboxSpent = true
      await this.#closeLog(live, null)
      result = this.#compose(live, verdict, { end: null, lease, progress, statsAfter: null })
    }
    live.scope[Symbol.dispose]()
    this.#letGo(ticket, lease, { outcome: result.outcome, statsAfter: measured, sandboxSpent })
    this.#count(live, result, clock.monotonicMs() - beganMs)
    return result
  }

  async #acquire(live: LiveExecution, progress: Progress): Promise<SandboxLease> {
    return this.parts.modes[live.request.mode].acquire(live, progress)
  }

  async #run(live: LiveExecution, lease: SandboxLease, { watch }: Progress): Promise<CommandEnd> {
    const { config, clock, log } = this.parts
    const { request } = live
    const end = await runCommand({
      sandbox: lease.sandbox,
      spec: execSpecOf(live, lease),
      scope: live.scope,
      outputBytesMax: request.outputBytesMax,
      logBytesMax: request.logBytesMax,
      writableBytesMax: request.limits.writableBytesMax,
      killGraceMs: config.killGraceMs,
      killWaitMs: config.killWaitMs,
      diskCheckMs: config.diskCheckMs,
      clock,
      log,
      onStarted: () => {
        watch.lap('exec_start')
        live.startedAtMs = clock.nowMs()
        if (live.state === 'starting') live.become('running')
      },
      onOutput: (stream, bytes) => live.output(stream, bytes),
    })
    watch.lap(live.startedAtMs === null ? 'exec_start' : 'run')
    return end
  }

  #stats({ sandbox }: SandboxLease): Promise<SandboxStats | null> {
    return sandbox.stats().catch((error: unknown) => {
      this.parts.log.debug({ sandbox: sandbox.id, err: error }, 'a sandbox could not be measured')
      return null
    })
  }

  /**
   * The measurement, if it comes in a time that fits the command: a twentieth of what it ran. A short command that
   * succeeded does not wait at all, and is accounted by the kernel's figures for its process. One that failed does
   * wait, because the measurement may tell why.
   */
  async #inGoodTime(measured: Promise<SandboxStats | null>, { exit }: CommandEnd, { watch }: Progress): Promise<SandboxStats | null> {
    const { clock, config } = this.parts
    const failed = exit === null || exit.exitCode !== 0
    const patienceMs = failed ? config.statsTimeoutMs : Math.min(config.statsTimeoutMs, (watch.budget()['run'] ?? 0) / 20)
    if (patienceMs < 1) return null
    const over = new AbortController()
    try {
      return await Promise.race([measured, clock.delay(patienceMs, over.signal).then(() => null, () => null)])
    } finally {
      over.abort(OVER)
    }
  }

  async #closeLog(live: LiveExecution, end: CommandEnd | null): Promise<void> {
    const truncated = end !== null && (end.stdout.truncated || end.stderr.truncated)
    try {
      await live.log.close({ keepOnDisk: truncated })
      live.outline = live.log.outline()
    } catch (error) {
      this.parts.log.error({ execution: live.id, err: error }, 'the log of an execution is incomplete')
    }
  }

  #compose(live: LiveExecution, verdict: Verdict, at: { readonly end: CommandEnd | null; readonly lease: SandboxLease | null; readonly progress: Progress; readonly statsAfter: SandboxStats | null }): ExecutionResult {
    const { end, lease, progress, statsAfter } = at
    progress.watch.lap('collect')
    const budget = withCreationPhases(progress.watch.budget(), lease)
    const stdout = end?.stdout ?? NOTHING
    const stderr = end?.stderr ?? NOTHING
    return {
      id: live.id,
      principal: live.principal,
      ...verdict,
      stdout,
      stderr,
      imageDigest: progress.image?.digest ?? null,
      imageStandIn: progress.image?.standIn ?? false,
      decision: progress.decision,
      start: lease?.start ?? null,
      usage: {
        wallMs: budget['run'] ?? 0,
        cpuMs: cpuMsOf(end, lease, statsAfter),
        memoryPeakBytes: Math.max(lease?.start === 'reused' ? 0 : (statsAfter?.memoryPeakBytes ?? 0), end?.exit?.usage.maxRssBytes ?? 0),
        outputBytes: stdout.totalBytes + stderr.totalBytes,
      },
      timeBudget: budget,
      instanceId: lease?.instanceId ?? live.request.instanceId ?? null,
      createdAtMs: live.createdAtMs,
      startedAtMs: live.startedAtMs,
      endedAtMs: this.parts.clock.nowMs(),
    }
  }

  /** I2. Under too much teardown the ticket stays out until the sandbox is gone, so that load waits for it. */
  #letGo(ticket: Ticket | null, lease: SandboxLease | null, end: LeaseEnd): void {
    if (lease === null) {
      ticket?.release()
      return
    }
    const released = lease.release(end)
    if (this.parts.disposer.overloaded) void released.then(() => ticket?.release())
    else ticket?.release()
  }

  #count(live: LiveExecution, result: ExecutionResult, totalMs: number): void {
    const { metrics } = this.parts
    metrics.ended({ runtime: result.decision?.runtime ?? 'none', outcome: result.outcome, start: result.start ?? 'none' }, totalMs, result.timeBudget)
    metrics.cpuMs += result.usage.cpuMs
    metrics.outputBytes += result.usage.outputBytes
    this.parts.log.debug({ execution: live.id, outcome: result.outcome, runtime: result.decision?.runtime, totalMs }, 'execution ended')
  }
}

/** Image, then instance, then request; a PATH when none of them has one. */
function execSpecOf({ request }: LiveExecution, { image, env }: SandboxLease): ExecSpec {
  const user = request.user ?? (image.config.user === '' ? undefined : image.config.user)
  return {
    argv: request.argv,
    env: { PATH: DEFAULT_PATH, ...image.config.env, ...env, ...request.env },
    cwd: request.cwd ?? (image.config.workingDir === '' ? '/' : image.config.workingDir),
    ...(user === undefined ? {} : { user }),
    ...(request.stdin === undefined || request.stdin.length === 0 ? { stdin: 'none' } : { stdin: request.stdin }),
  }
}

/** The sandbox's own account, when there are two readings of it; else that of the command and the children it waited for. */
function cpuMsOf(end: CommandEnd | null, lease: SandboxLease | null, statsAfter: SandboxStats | null): number {
  const before = lease?.statsBefore ?? null
  if (before !== null && statsAfter !== null) return Math.max(0, statsAfter.cpuMs - before.cpuMs)
  const usage = end?.exit?.usage
  return usage === undefined ? 0 : usage.userCpuMs + usage.systemCpuMs
}

/** A cold start's one phase becomes the phases its driver measured, when they happened within it. */
function withCreationPhases(budget: TimeBudget, lease: SandboxLease | null): TimeBudget {
  const createMs = budget['create']
  if (createMs === undefined || lease === null) return budget
  const phases = Object.entries(lease.sandbox.timeBudget)
  const known = phases.reduce((sum, [, ms]) => sum + ms, 0)
  if (phases.length === 0 || known > createMs) return budget // Begun before this request came.
  const whole: Record<string, number> = {}
  for (const [name, ms] of Object.entries(budget)) {
    if (name !== 'create') whole[name] = ms
    else {
      for (const [phase, phaseMs] of phases) whole[`create_${phase}`] = phaseMs
      whole['create_other'] = Math.round((createMs - known) * 1000) / 1000 // I3
    }
  }
  return whole
}
