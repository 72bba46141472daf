/** Error kinds → process exit codes: sysexits.h where it has a word, the shell's own conventions elsewhere. */
import { ERROR_CODES, type ErrorKind, FaasError } from '@faas-platform/core'
import { type ExecutionResult, FaaSError } from '@faas-platform/sdk'
import { CommanderError } from 'commander'

export const EXIT_CODE = {
  invalid_argument: 64, // EX_USAGE
  not_found: 66, // EX_NOINPUT
  unavailable: 69, // EX_UNAVAILABLE
  upstream_failed: 69,
  internal: 70, // EX_SOFTWARE
  unsupported: 71,
  conflict: 73,
  too_large: 73,
  resource_exhausted: 73,
  rate_limited: 75, // EX_TEMPFAIL: try again later
  unauthenticated: 77, // EX_NOPERM
  permission_denied: 77,
  deadline_exceeded: 124, // as timeout(1)
  cancelled: 130, // as after Ctrl-C
} as const satisfies Record<ErrorKind, number>

/** Why `signal` of a command was aborted. */
export class Interruption extends Error {
  /** As a shell reports it: 128 + the signal's number. */
  readonly exitCode: number
  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`interrupted by ${signal}`)
    this.exitCode = signal === 'SIGINT' ? 130 : 143
  }
}

/** What a shell says of a command that can not be started. */
const NOT_FOUND = 127

/** The guest's own code where it ended by itself or by a signal; where the platform ended it, or it never began, that of the error. */
export function exitCodeOfResult({ outcome, exitCode, raw }: ExecutionResult): number {
  if (outcome === undefined || outcome === 'exited' || outcome === 'signaled' || outcome === 'oom') return exitCode ?? EXIT_CODE.internal
  if (outcome === 'spawn_failed') return NOT_FOUND
  return codeOf(raw['error_code']) ?? (exitCode === undefined || exitCode < 1 ? EXIT_CODE.internal : exitCode)
}

function codeOf(code: unknown): number | undefined {
  const entry = Object.entries(ERROR_CODES).find(([name]) => name === code)?.[1]
  return entry === undefined ? undefined : EXIT_CODE[entry.kind]
}

export function exitCodeOf(thrown: unknown): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : EXIT_CODE.invalid_argument
  const code = thrown instanceof FaasError || thrown instanceof FaaSError ? codeOf(thrown.code) : undefined
  if (code !== undefined) return code
  if (thrown instanceof FaaSError) return thrown.status === 404 ? EXIT_CODE.not_found : EXIT_CODE.unavailable
  return EXIT_CODE.internal
}
