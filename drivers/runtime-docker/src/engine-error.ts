/**
 * What can go wrong between this process and the engine, before the driver gives it a meaning.
 * Stays inside the package: `toDriverError` turns it into a `FaasError` at the edge.
 */
import { FaasError, type ErrorCode } from '@faas-platform/core'

/**
 * `unreachable`: no connection, or it broke. `timeout`: no answer in time. `protocol`: the answer is not what the API
 * promises. `status`: the engine said no, with `status` and its own words in `message`.
 */
export type EngineErrorKind = 'unreachable' | 'timeout' | 'protocol' | 'status'

export class EngineError extends Error {
  constructor(
    readonly kind: EngineErrorKind,
    message: string,
    readonly status: number | null = null,
    cause?: unknown,
  ) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'EngineError'
  }
}

export function isEngineStatus(thrown: unknown, ...statuses: readonly number[]): thrown is EngineError {
  return thrown instanceof EngineError && thrown.kind === 'status' && thrown.status !== null && statuses.includes(thrown.status)
}

/**
 * Gives an engine failure the code of the action that failed. The engine's own words may hold host paths,
 * so they stay in `cause`. Anything that is no `EngineError` (a `FaasError`, an abort reason) passes unchanged.
 */
export function toDriverError(thrown: unknown, code: ErrorCode, message: string): unknown {
  if (!(thrown instanceof EngineError)) return thrown
  if (thrown.kind === 'unreachable') {
    return new FaasError('runtime/unavailable', {
      message: 'The Docker Engine can not be reached.',
      hint: 'Check that the engine runs and that this process may use its socket.',
      cause: thrown,
    })
  }
  if (thrown.kind === 'timeout' && code === 'sandbox/create-failed') {
    return new FaasError('sandbox/create-timeout', { message: 'The Docker Engine did not answer in time.', cause: thrown })
  }
  return new FaasError(code, { message, cause: thrown })
}
