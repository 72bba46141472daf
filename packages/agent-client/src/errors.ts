/** Turns the agent's ERROR frames and broken connections into the platform's errors. */
import { FaasError, type ErrorCode } from '@faas-platform/core'
import { FieldMap } from './wire.js'

/** Reasons as `details.reason` names them, by the agent's numeric code. */
const REASONS: Readonly<Record<number, { readonly reason: string; readonly code: ErrorCode }>> = {
  1: { reason: 'protocol', code: 'agent/protocol-error' },
  2: { reason: 'version', code: 'agent/protocol-error' },
  3: { reason: 'limit', code: 'execution/spawn-failed' },
  4: { reason: 'no-such-exec', code: 'execution/not-running' },
  5: { reason: 'invalid', code: 'request/invalid' },
  6: { reason: 'cancelled', code: 'execution/cancelled' },
  7: { reason: 'unsupported', code: 'runtime/unsupported' },
  16: { reason: 'command-not-found', code: 'execution/spawn-failed' },
  17: { reason: 'not-executable', code: 'execution/spawn-failed' },
  18: { reason: 'bad-cwd', code: 'execution/spawn-failed' },
  19: { reason: 'unknown-user', code: 'execution/spawn-failed' },
  20: { reason: 'arguments-too-big', code: 'execution/spawn-failed' },
  21: { reason: 'no-resources', code: 'execution/spawn-failed' },
  22: { reason: 'exec-failed', code: 'execution/spawn-failed' },
  32: { reason: 'file', code: 'sandbox/file-error' },
  33: { reason: 'escape', code: 'sandbox/path-invalid' },
  34: { reason: 'bad-archive', code: 'sandbox/file-error' },
}

const MESSAGE_MAX = 500

/** Null when the frame itself is malformed or its code unknown. */
export function decodeError(payload: Uint8Array): FaasError | null {
  const fields = new FieldMap(payload)
  const known = REASONS[fields.u16(1)]
  const errno = fields.u32(2)
  // Guest text: bounded, and without control characters that could drive a terminal.
  const text = fields.text(3).slice(0, MESSAGE_MAX).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?')
  if (fields.malformed || known === undefined) return null
  return new FaasError(known.code, {
    message: `The sandbox refused: ${text}.`,
    details: { reason: known.reason, ...(errno === 0 ? {} : { errno }) },
  })
}

export function protocolError(what: string): FaasError {
  return new FaasError('agent/protocol-error', {
    message: `The guest agent broke the protocol: ${what}.`,
    hint: 'The sandbox can not be trusted any more; destroy it.',
  })
}

export function disconnected(cause: unknown): FaasError {
  return new FaasError('agent/disconnected', {
    message: 'The connection to the guest agent was lost.',
    ...(cause === undefined ? {} : { cause }),
  })
}

/** What an aborted signal means: its own domain error, or a cancellation. */
export function abortError(signal: AbortSignal): FaasError {
  if (signal.reason instanceof FaasError) return signal.reason
  return new FaasError('execution/cancelled', { message: 'The call was cancelled.', cause: signal.reason })
}
