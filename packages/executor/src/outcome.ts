/** What a command's end means: outcome, state, exit code and the words for it. One table for every mode. */
import { constants } from 'node:os'
import type { ErrorCode, ExecutionResult, ExecutionState, FaasError, Outcome, SandboxStats } from '@faas-platform/core'
import type { LiveExecution } from './live-execution.js'
import type { CommandEnd } from './run-command.js'
import type { StopCause, StopScope } from './stop-scope.js'

export interface Verdict {
  readonly outcome: Outcome
  readonly state: ExecutionState
  readonly exitCode: number | null
  readonly signal: string | null
  readonly message: string | null
  readonly errorCode: ErrorCode | null
}

/** As `timeout(1)` answers. */
const DEADLINE_EXIT_CODE = 124
const OOM_EXIT_CODE = 137
const NOT_FOUND_EXIT_CODE = 127
const NOT_EXECUTABLE_EXIT_CODE = 126

/** Before a command ran: the deadline or the caller ended the wait, or something failed. */
export function verdictOfFailure(scope: Pick<StopScope, 'cause' | 'message'>, error: FaasError): Verdict {
  if (scope.cause !== null) return stoppedVerdict(scope.cause, scope.message, null, null)
  return { outcome: 'error', state: 'failed', exitCode: null, signal: null, message: error.message, errorCode: error.code }
}

export function verdictOf(end: CommandEnd, stopMessage: string, stats: SandboxStats | null, writableBytesMax: number): Verdict {
  const code = end.exit === null ? null : codeOf(end.exit.exitCode, end.exit.signal)
  const signal = end.exit?.signal ?? null
  if (end.cause !== null) return stoppedVerdict(end.cause, stopMessage, code, signal)
  if (end.error !== null) return errorVerdict(end.error)
  if (end.exit === null) return { outcome: 'error', state: 'failed', exitCode: null, signal: null, message: 'The command did not end.', errorCode: 'sandbox/lost' }
  if (end.exit.oomKilled && code !== 0) {
    return { outcome: 'oom', state: 'failed', exitCode: end.exit.exitCode ?? OOM_EXIT_CODE, signal, message: 'The command ran out of memory and was killed.', errorCode: 'sandbox/oom' }
  }
  if (code !== 0 && stats !== null && stats.writableBytes !== null && stats.writableBytes > writableBytesMax) {
    return { outcome: 'disk_limit', state: 'failed', exitCode: code, signal, message: `The command wrote more than ${writableBytesMax} bytes to its file system.`, errorCode: 'execution/disk-limit' }
  }
  if (signal !== null) return { outcome: 'signaled', state: 'failed', exitCode: code, signal, message: `Process was ended by ${signal}`, errorCode: null }
  return { outcome: 'exited', state: code === 0 ? 'succeeded' : 'failed', exitCode: code, signal: null, message: code === 0 ? null : `Process exited with code ${code}`, errorCode: null }
}

/** The result of an execution whose command never ran in this process. */
export function endedWithout(live: LiveExecution, atMs: number, outcome: 'cancelled' | 'error', errorCode: ErrorCode, message: string): ExecutionResult {
  const nothing = { bytes: new Uint8Array(), totalBytes: 0, truncated: false }
  return {
    id: live.id, principal: live.principal, state: outcome === 'cancelled' ? 'cancelled' : 'failed', outcome, exitCode: null, signal: null,
    stdout: nothing, stderr: nothing, message, errorCode, imageDigest: null, imageStandIn: false, decision: null, start: null,
    usage: { wallMs: 0, cpuMs: 0, memoryPeakBytes: 0, outputBytes: 0 }, timeBudget: {}, instanceId: live.instanceId,
    createdAtMs: live.createdAtMs, startedAtMs: null, endedAtMs: atMs,
  }
}

function stoppedVerdict(cause: StopCause, message: string, code: number | null, signal: string | null): Verdict {
  switch (cause) {
    case 'deadline': return { outcome: 'deadline', state: 'timed_out', exitCode: DEADLINE_EXIT_CODE, signal, message, errorCode: 'execution/deadline' }
    case 'cancelled': return { outcome: 'cancelled', state: 'cancelled', exitCode: code, signal, message, errorCode: 'execution/cancelled' }
    case 'shutdown': return { outcome: 'cancelled', state: 'cancelled', exitCode: code, signal, message, errorCode: 'admission/draining' }
    case 'output_limit': return { outcome: 'output_limit', state: 'failed', exitCode: code, signal, message, errorCode: 'execution/output-limit' }
    case 'disk_limit': return { outcome: 'disk_limit', state: 'failed', exitCode: code, signal, message, errorCode: 'execution/disk-limit' }
  }
}

function errorVerdict(error: FaasError): Verdict {
  const base = { state: 'failed', signal: null, message: error.message, errorCode: error.code } as const
  switch (error.code) {
    case 'execution/spawn-failed':
      return { ...base, outcome: 'spawn_failed', exitCode: error.details?.['reason'] === 'command-not-found' ? NOT_FOUND_EXIT_CODE : NOT_EXECUTABLE_EXIT_CODE }
    case 'sandbox/oom': return { ...base, outcome: 'oom', exitCode: OOM_EXIT_CODE }
    case 'execution/disk-limit': return { ...base, outcome: 'disk_limit', exitCode: null }
    default: return { ...base, outcome: 'error', exitCode: null }
  }
}

/** As a shell reports it: the code, or 128 + the signal's number. */
function codeOf(exitCode: number | null, signal: string | null): number {
  if (exitCode !== null) return exitCode
  const numbers: Readonly<Record<string, number>> = constants.signals
  return 128 + (signal === null ? 0 : (numbers[signal] ?? 0))
}
