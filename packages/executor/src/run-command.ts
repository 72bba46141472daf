/**
 * Runs one command in a sandbox until it ends or has to: bounded output, deadline, cancellation, disk watch.
 *
 * I1. The returned promise settles within the deadline + `killGraceMs` + `killWaitMs`, whatever the guest does.
 * I2. Captured output is whole up to the moment the command ended.
 */
import {
  FaasError, isFaasError, toFaasError, type CapturedStream, type Clock, type ExecExit, type ExecSpec, type LogSink, type Sandbox,
} from '@faas-platform/core'
import { StreamCapture } from './capture.js'
import type { StopCause, StopScope } from './stop-scope.js'
import { OVER } from './over.js'

export interface CommandOptions {
  readonly sandbox: Sandbox
  readonly spec: ExecSpec
  readonly scope: StopScope
  readonly outputBytesMax: number
  readonly logBytesMax: number
  readonly writableBytesMax: number
  readonly killGraceMs: number
  readonly killWaitMs: number
  readonly diskCheckMs: number
  readonly clock: Clock
  readonly log: LogSink
  /** The command has started. */
  readonly onStarted: () => void
  readonly onOutput: (stream: 'stdout' | 'stderr', bytes: Uint8Array) => Promise<void> | undefined
}

export interface CommandEnd {
  /** Null when it never started, or did not end even when killed. */
  readonly exit: ExecExit | null
  /** Why there is no exit, or why it is not the guest's own. */
  readonly error: FaasError | null
  /** What made it end, when it did not end by itself. */
  readonly cause: StopCause | null
  readonly stdout: CapturedStream
  readonly stderr: CapturedStream
  /** The sandbox can not be trusted with another command. */
  readonly sandboxSpent: boolean
}

export async function runCommand(options: CommandOptions): Promise<CommandEnd> {
  const { sandbox, spec, scope, clock } = options
  const stdout = new StreamCapture(options.outputBytesMax)
  const stderr = new StreamCapture(options.outputBytesMax)
  const hardKill = new AbortController()
  const over = new AbortController()
  const finish = (exit: ExecExit | null, error: FaasError | null, sandboxSpent: boolean): CommandEnd => {
    over.abort(OVER)
    return { exit, error, cause: scope.cause, stdout: stdout.finish(), stderr: stderr.finish(), sandboxSpent }
  }
  let totalBytes = 0
  const io = {
    onOutput(stream: 'stdout' | 'stderr', bytes: Uint8Array): Promise<void> | undefined {
      if (over.signal.aborted) return undefined
      totalBytes += bytes.length
      if (totalBytes > options.logBytesMax) {
        scope.stop('output_limit', `The command wrote more than ${options.logBytesMax} bytes of output.`)
        return undefined
      }
      const kept = bytes.slice() // The driver may hand out views into a buffer it uses again.
      if (stream === 'stdout') stdout.push(kept)
      else stderr.push(kept)
      return options.onOutput(stream, kept)
    },
  }

  let handle
  // Starting has no grace: an abort before the command runs ends at once.
  const abortStart = (): void => hardKill.abort(scope.signal.reason)
  scope.signal.addEventListener('abort', abortStart, { once: true })
  try {
    scope.signal.throwIfAborted()
    handle = await sandbox.exec(spec, io as Parameters<Sandbox['exec']>[1], { signal: hardKill.signal })
  } catch (thrown) {
    const error = toFaasError(thrown)
    return finish(null, error, isSpent(error))
  } finally {
    scope.signal.removeEventListener('abort', abortStart)
  }
  options.onStarted()
  void watchDisk(options, over.signal)

  const exited = handle.wait().then(
    (exit) => ({ exit, error: null }),
    (thrown: unknown) => ({ exit: null, error: toFaasError(thrown) }),
  )
  const stopped = whenAborted(scope.signal, over.signal)
  const first = await Promise.race([exited, stopped])
  if (first !== undefined) return finish(first.exit, first.error, isSpent(first.error))

  // It has to end: ask, then insist, then give the sandbox up.
  const gentle = scope.cause === 'deadline' || scope.cause === 'cancelled' || scope.cause === 'shutdown'
  const pause = (ms: number): Promise<undefined> => clock.delay(ms, over.signal).then(() => undefined, () => undefined)
  if (gentle && options.killGraceMs > 0) {
    signalGroup(handle.kill('SIGTERM'), options)
    const afterTerm = await Promise.race([exited, pause(options.killGraceMs)])
    if (afterTerm !== undefined) return finish(afterTerm.exit, afterTerm.error, isSpent(afterTerm.error))
  }
  signalGroup(handle.kill('SIGKILL'), options)
  const afterKill = await Promise.race([exited, pause(options.killWaitMs)])
  if (afterKill !== undefined) return finish(afterKill.exit, afterKill.error, isSpent(afterKill.error))
  hardKill.abort(scope.signal.reason) // I1
  return finish(null, null, true)
}

/** Does this failure speak of the sandbox or its agent, and not only of the command? */
function isSpent(error: FaasError | null): boolean {
  return error !== null && (error.code.startsWith('sandbox/') || error.code.startsWith('agent/') || error.code === 'execution/disk-limit')
}

/** A signal that can not be delivered is no news: the process is gone, or the sandbox is, and `wait` says so. */
function signalGroup(sent: Promise<void>, { log, sandbox }: CommandOptions): void {
  sent.catch((error: unknown) => log.debug({ sandbox: sandbox.id, err: error }, 'a signal could not be delivered'))
}

function whenAborted(signal: AbortSignal, unless: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve(undefined)
      return
    }
    signal.addEventListener('abort', () => resolve(undefined), { once: true, signal: unless })
  })
}

/** For runtimes whose file system does not enforce the limit itself. Looks seldom enough to cost at most a twentieth of the time. */
async function watchDisk({ sandbox, scope, clock, writableBytesMax, diskCheckMs, log }: CommandOptions, over: AbortSignal): Promise<void> {
  let pauseMs = diskCheckMs
  for (;;) {
    try {
      await clock.delay(pauseMs, over)
    } catch {
      return // The command ended.
    }
    const startedMs = clock.monotonicMs()
    try {
      const { writableBytes } = await sandbox.stats()
      if (writableBytes !== null && writableBytes > writableBytesMax) {
        scope.stop('disk_limit', `The command wrote more than ${writableBytesMax} bytes to its file system.`)
        return
      }
    } catch (error) {
      if (!isFaasError(error, 'sandbox/destroyed')) log.debug({ sandbox: sandbox.id, err: error }, 'the disk use of a sandbox could not be read')
    }
    pauseMs = Math.max(diskCheckMs, (clock.monotonicMs() - startedMs) * 20)
  }
}
