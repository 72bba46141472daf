/** Errors of the client. Every failed call throws one of these, or the reason of the caller's own signal. */
import type { ExecutionResult } from './types.js'

export interface FaaSErrorFields {
  /** Stable code such as `execution/deadline`; the gateway's `/docs` and docs/errors.md list them. */
  readonly code: string
  /** HTTP status, or 0 when no answer arrived. */
  readonly status: number
  readonly hint?: string | undefined
  readonly details?: Readonly<Record<string, unknown>> | undefined
  readonly requestId?: string | undefined
  /** From `retry-after`, ms. */
  readonly retryAfterMs?: number | undefined
  readonly cause?: unknown
}

export class FaaSError extends Error implements FaaSErrorFields {
  readonly code: string
  readonly status: number
  readonly hint: string | undefined
  readonly details: Readonly<Record<string, unknown>> | undefined
  readonly requestId: string | undefined
  readonly retryAfterMs: number | undefined

  constructor(message: string, fields: FaaSErrorFields) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause })
    this.name = new.target.name
    this.code = fields.code
    this.status = fields.status
    this.hint = fields.hint
    this.details = fields.details
    this.requestId = fields.requestId
    this.retryAfterMs = fields.retryAfterMs
  }
}

/** The gateway answered, with an error. */
export class FaaSApiError extends FaaSError {
  /** What was captured, when the call was an execution that had begun. */
  readonly execution: ExecutionResult | undefined

  constructor(message: string, fields: FaaSErrorFields & { readonly execution?: ExecutionResult | undefined }) {
    super(message, fields)
    this.execution = fields.execution
  }

  /** What the command had written to its standard output. */
  get stdout(): string {
    return this.execution?.stdout ?? ''
  }

  get stderr(): string {
    return this.execution?.stderr ?? ''
  }
}

/** The command ran into its wall-time limit (504). `stdout` and `stderr` hold what it had written. */
export class FaaSTimeoutError extends FaaSApiError {}

/** 429: over a limit; `retryAfterMs` says when to come back. */
export class FaaSRateLimitError extends FaaSApiError {}

/** 401 or 403. */
export class FaaSAuthError extends FaaSApiError {}

/** No answer: refused, reset, name not found, or the client's own deadline passed. */
export class FaaSConnectionError extends FaaSError {}

/** The answer is not what the interface promises. */
export class FaaSResponseError extends FaaSError {}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
