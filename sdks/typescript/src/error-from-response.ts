import { FaaSApiError, FaaSAuthError, FaaSRateLimitError, FaaSTimeoutError, isRecord } from './errors.js'
import { toResult } from './wire.js'

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
  const fields = {
    code: typeof envelope?.['code'] === 'string' ? envelope['code'] : `http/${status}`,
    status,
    hint: typeof envelope?.['hint'] === 'string' ? envelope['hint'] : undefined,
    details: isRecord(envelope?.['details']) ? envelope['details'] : undefined,
    requestId:
      isRecord(body) && typeof body['request_id'] === 'string' ? body['request_id'] : (headers.get('x-request-id') ?? undefined),
    retryAfterMs: Number.isFinite(retryAfter) ? retryAfter * 1000 : undefined,
    execution: isRecord(body) && typeof body['exit_code'] === 'number' ? toResult(body) : undefined,
  }
  if (status === 504) return new FaaSTimeoutError(message, fields)
  if (status === 429) return new FaaSRateLimitError(message, fields)
  if (status === 401 || status === 403) return new FaaSAuthError(message, fields)
  return new FaaSApiError(message, fields)
}
