/** Error kinds → process exit codes: sysexits.h where it has a word, the shell's own conventions elsewhere. */
import { ERROR_CODES, type ErrorKind, FaasError } from '@faas-platform/core'
import { FaaSError } from '@faas-platform/sdk'
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

export function exitCodeOf(thrown: unknown): number {
  if (thrown instanceof CommanderError) return thrown.exitCode === 0 ? 0 : EXIT_CODE.invalid_argument
  const code = thrown instanceof FaasError || thrown instanceof FaaSError ? thrown.code : undefined
  const entry = code === undefined ? undefined : Object.entries(ERROR_CODES).find(([name]) => name === code)?.[1]
  if (entry !== undefined) return EXIT_CODE[entry.kind]
  if (thrown instanceof FaaSError) return thrown.status === 404 ? EXIT_CODE.not_found : EXIT_CODE.unavailable
  return EXIT_CODE.internal
}
