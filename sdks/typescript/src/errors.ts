/** Errors of the client. Every failed call throws one of these; nothing else is thrown on purpose. */

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
export class FaaSApiError extends FaaSError {}

/** The command ran into its wall-time limit (504). `stdout` and `stderr` hold what it had written. */
export class FaaSTimeoutError extends FaaSApiError {
  get stdout(): string {
    return textOf(this.details?.['stdout'])
  }
  get stderr(): string {
    return textOf(this.details?.['stderr'])
  }
}

/** 429: over a limit; `retryAfterMs` says when to come back. */
export class FaaSRateLimitError extends FaaSApiError {}

/** 401 or 403. */
export class FaaSAuthError extends FaaSApiError {}

/** No answer: refused, reset, name not found, or the client's own deadline passed. */
export class FaaSConnectionError extends FaaSError {}

/** The answer is not what the interface promises. */
export class FaaSResponseError extends FaaSError {}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Builds the error for a non-2xx answer from its body, whatever the server put there. */
export function errorFromResponse(status: number, bodyText: string, headers: Headers): FaaSApiError {
  let body: unknown
  try {
    body = JSON.parse(bodyText)
  } catch {
    body = undefined // not JSON: an intermediary answered; the text itself is the message below
  }
  const envelope = isRecord(body) && isRecord(body['error']) ? body['error'] : undefined
  const message =
    typeof envelope?.['message'] === 'string'
      ? envelope['message']
      : isRecord(body) && typeof body['error'] === 'string'
        ? body['error']
        : bodyText.trim().slice(0, 500) || `The gateway answered with status ${status}.`
  const retryAfter = Number(headers.get('retry-after') ?? Number.NaN)
  const fields: FaaSErrorFields = {
    code: typeof envelope?.['code'] === 'string' ? envelope['code'] : `http/${status}`,
    status,
    hint: typeof envelope?.['hint'] === 'string' ? envelope['hint'] : undefined,
    details: isRecord(envelope?.['details']) ? envelope['details'] : undefined,
    requestId:
      isRecord(body) && typeof body['request_id'] === 'string' ? body['request_id'] : (headers.get('x-request-id') ?? undefined),
    retryAfterMs: Number.isFinite(retryAfter) ? retryAfter * 1000 : undefined,
  }
  if (status === 504) return new FaaSTimeoutError(message, fields)
  if (status === 429) return new FaaSRateLimitError(message, fields)
  if (status === 401 || status === 403) return new FaaSAuthError(message, fields)
  return new FaaSApiError(message, fields)
}
