/**
 * The one error type of the platform and the table of its stable codes.
 *
 * I1. Every thrown domain error is a `FaasError`; its `code` is a key of `ERROR_CODES`.
 * I2. `kind` follows from the code, so an adapter maps kinds once (HTTP status, exit code).
 * I3. `message` and `hint` are safe to show to a caller; foreign text goes into `cause`.
 */

export const ERROR_KINDS = [
  'invalid_argument', 'unauthenticated', 'permission_denied', 'not_found', 'conflict', 'too_large',
  'rate_limited', 'cancelled', 'internal', 'unsupported', 'upstream_failed', 'unavailable',
  'deadline_exceeded', 'resource_exhausted',
] as const
export type ErrorKind = (typeof ERROR_KINDS)[number]

interface CodeEntry {
  readonly kind: ErrorKind
  /** May the same call succeed later without a change by the caller? */
  readonly retryable?: true
  /** One line for the documentation. */
  readonly doc: string
}

export const ERROR_CODES = {
  'request/invalid': { kind: 'invalid_argument', doc: 'The request does not match the schema; `details.issues` lists every problem.' },
  'request/malformed-json': { kind: 'invalid_argument', doc: 'The request body is not JSON.' },
  'request/unsupported-media-type': { kind: 'invalid_argument', doc: 'The request body must be sent as `application/json`.' },
  'request/too-large': { kind: 'too_large', doc: 'The request body is larger than `FAAS_MAX_BODY_BYTES`.' },
  'request/unknown-route': { kind: 'not_found', doc: 'No such path, or no such method on this path.' },
  'request/origin-refused': { kind: 'permission_denied', doc: 'The request comes from a web page whose origin `FAAS_CORS_ORIGINS` does not list.' },
  'request/host-refused': { kind: 'permission_denied', doc: 'The `Host` header names neither loopback nor a host of `FAAS_ALLOWED_HOSTS`; a gateway without keys answers nobody else (DNS rebinding).' },
  'request/idempotency-conflict': { kind: 'conflict', doc: 'The idempotency key was used before with another request body.' },
  'auth/missing-key': { kind: 'unauthenticated', doc: 'This gateway demands an API key and none was sent.' },
  'auth/invalid-key': { kind: 'unauthenticated', doc: 'The API key is unknown, expired or revoked.' },
  'auth/missing-scope': { kind: 'permission_denied', doc: 'The API key lacks the scope that this call needs.' },
  'config/invalid': { kind: 'invalid_argument', doc: 'One or more settings are wrong; `details.issues` lists every one.' },
  'admission/queue-full': { kind: 'rate_limited', retryable: true, doc: 'The bounded queue is full; retry after `details.retryAfterMs`.' },
  'admission/principal-limit': { kind: 'rate_limited', retryable: true, doc: 'The principal has its allowed number of executions queued or running.' },
  'admission/draining': { kind: 'unavailable', retryable: true, doc: 'The gateway is shutting down and takes no new work.' },
  'execution/not-found': { kind: 'not_found', doc: 'No execution with this id, or it belongs to somebody else, or its record expired.' },
  'execution/deadline': { kind: 'deadline_exceeded', doc: 'The command ran longer than its wall-time limit and was ended; `details` has what was captured.' },
  'execution/cancelled': { kind: 'cancelled', doc: 'The caller cancelled the execution or went away.' },
  'execution/not-running': { kind: 'conflict', doc: 'The execution already ended.' },
  'execution/interrupted': { kind: 'unavailable', retryable: true, doc: 'The gateway was stopped while the command ran and the request does not allow to run it again.' },
  'execution/disk-limit': { kind: 'resource_exhausted', doc: 'The sandbox wrote more than its writable-bytes limit and was ended.' },
  'execution/output-limit': { kind: 'resource_exhausted', doc: 'The full log of the execution went over its limit and the command was ended.' },
  'execution/spawn-failed': { kind: 'invalid_argument', doc: 'The command could not be started in the sandbox: not found, not executable, bad working directory or unknown user.' },
  'execution/result-expired': { kind: 'not_found', doc: 'The end state of this execution is no longer retained.' },
  'sandbox/create-failed': { kind: 'internal', doc: 'The runtime could not make the sandbox.' },
  'sandbox/create-timeout': { kind: 'unavailable', retryable: true, doc: 'The sandbox did not become ready in time.' },
  'sandbox/lost': { kind: 'internal', doc: 'The sandbox ended by itself while it was in use.' },
  'sandbox/oom': { kind: 'resource_exhausted', doc: 'The sandbox ran out of memory and its agent was killed with it.' },
  'sandbox/destroyed': { kind: 'conflict', doc: 'The sandbox was destroyed and takes no more calls.' },
  'sandbox/path-invalid': { kind: 'invalid_argument', doc: 'The path is not acceptable inside a sandbox.' },
  'sandbox/file-error': { kind: 'invalid_argument', doc: 'A file operation inside the sandbox failed; `details.errno` has the reason.' },
  'agent/disconnected': { kind: 'unavailable', doc: 'The connection to the guest agent was lost.' },
  'agent/protocol-error': { kind: 'upstream_failed', doc: 'The guest agent sent something that the protocol does not allow; the sandbox is ended.' },
  'agent/timeout': { kind: 'unavailable', doc: 'The guest agent did not answer in time.' },
  'instance/not-found': { kind: 'not_found', doc: 'No instance with this id, or it belongs to somebody else.' },
  'instance/wrong-state': { kind: 'conflict', doc: 'The instance is in a state that does not allow this action.' },
  'instance/limit': { kind: 'rate_limited', doc: 'The principal has its allowed number of instances.' },
  'runtime/unknown': { kind: 'invalid_argument', doc: 'There is no runtime of this name.' },
  'runtime/unavailable': { kind: 'unavailable', doc: 'The runtime asked for by name can not be used on this host; `hint` says why and how to get it.' },
  'runtime/none-available': { kind: 'unavailable', doc: 'No runtime on this host satisfies the request.' },
  'runtime/unsupported': { kind: 'unsupported', doc: 'The runtime does not have this feature.' },
  'runtime/vulnerable': { kind: 'unavailable', doc: 'The runtime is older than the version that fixes a known escape, and untrusted work is refused on it.' },
  'image/invalid-reference': { kind: 'invalid_argument', doc: 'The image reference does not follow the OCI grammar.' },
  'image/not-found': { kind: 'not_found', doc: 'The image is neither stored here nor known to its registry.' },
  'image/pull-failed': { kind: 'upstream_failed', retryable: true, doc: 'The registry could not be reached or refused the pull.' },
  'image/unauthorized': { kind: 'permission_denied', doc: 'The registry demands credentials that it was not given or did not accept.' },
  'image/registry-refused': { kind: 'permission_denied', doc: 'The image name points to a registry on this host or a private network that the gateway was not told to trust.' },
  'image/digest-mismatch': { kind: 'upstream_failed', doc: 'Content from the registry or archive does not have the digest it was announced with.' },
  'image/invalid': { kind: 'invalid_argument', doc: 'The image is malformed or holds content that is refused (device nodes, path traversal, unsupported media type).' },
  'image/platform-mismatch': { kind: 'not_found', doc: 'The image has no variant for the platform of this host.' },
  'image/too-large': { kind: 'too_large', doc: 'The image is larger than the configured limit.' },
  'image/in-use': { kind: 'conflict', doc: 'The image is in use and can not be removed.' },
  'network/unavailable': { kind: 'unavailable', doc: 'The host can not provide the requested network policy; `hint` says what is missing.' },
  'mode/unsupported': { kind: 'unsupported', doc: 'This execution mode is not available here.' },
  'mode/missing-parent': { kind: 'invalid_argument', doc: 'Mode `branched` needs `branch_from`.' },
  'snapshot/not-found': { kind: 'not_found', doc: 'No snapshot with this id, or it belongs to somebody else.' },
  'key/not-found': { kind: 'not_found', doc: 'No API key with this id.' },
  'store/unavailable': { kind: 'unavailable', retryable: true, doc: 'The store can not be reached, or its disk is full.' },
  'store/corrupt': { kind: 'internal', doc: 'Stored data failed its check and was not used.' },
  'store/locked': { kind: 'conflict', doc: 'Another process uses this data directory.' },
  'client/connection-failed': { kind: 'unavailable', retryable: true, doc: 'The gateway could not be reached.' },
  'client/invalid-response': { kind: 'upstream_failed', doc: 'The answer is not what the interface promises.' },
  'internal/bug': { kind: 'internal', doc: 'An invariant of the platform was broken; please report it with the request id.' },
} as const satisfies Record<string, CodeEntry>

export type ErrorCode = keyof typeof ERROR_CODES

export interface FaasErrorOptions {
  readonly message: string
  /** What the caller can do next. Safe to show. */
  readonly hint?: string | undefined
  /** Machine-readable facts, JSON-serialisable, safe to show. */
  readonly details?: Readonly<Record<string, unknown>> | undefined
  readonly cause?: unknown
}

export class FaasError extends Error {
  readonly code: ErrorCode
  readonly kind: ErrorKind
  readonly hint: string | undefined
  readonly details: Readonly<Record<string, unknown>> | undefined
  readonly retryable: boolean

  constructor(code: ErrorCode, options: FaasErrorOptions) {
    super(options.message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = 'FaasError'
    const entry: CodeEntry = ERROR_CODES[code]
    this.code = code
    this.kind = entry.kind
    this.retryable = entry.retryable === true
    this.hint = options.hint
    this.details = options.details
  }
}

/** Turns anything thrown into a `FaasError`; foreign errors become `internal/bug` with the original as cause. */
export function toFaasError(thrown: unknown): FaasError {
  if (thrown instanceof FaasError) return thrown
  return new FaasError('internal/bug', { message: 'Something went wrong inside the platform.', cause: thrown })
}

export function isFaasError(thrown: unknown, code?: ErrorCode): thrown is FaasError {
  return thrown instanceof FaasError && (code === undefined || thrown.code === code)
}

/** Throws for a state that the code's own invariants exclude. */
export function bug(message: string, details?: Readonly<Record<string, unknown>>): never {
  throw new FaasError('internal/bug', { message, details })
}
