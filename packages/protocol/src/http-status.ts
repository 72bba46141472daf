/** Error kinds as HTTP statuses: the one table. */
import type { ErrorKind } from '@faas-platform/core'

export const HTTP_STATUS = {
  invalid_argument: 400,
  unauthenticated: 401,
  permission_denied: 403,
  not_found: 404,
  conflict: 409,
  too_large: 413,
  rate_limited: 429,
  // nginx's "client closed request"; no registered status says "somebody cancelled it".
  cancelled: 499,
  internal: 500,
  unsupported: 501,
  upstream_failed: 502,
  unavailable: 503,
  deadline_exceeded: 504,
  resource_exhausted: 507,
} as const satisfies Record<ErrorKind, number>

/** Codes whose usual HTTP status says more than that of their kind. */
const STATUS_BY_CODE: Readonly<Partial<Record<string, number>>> = {
  'request/unsupported-media-type': 415,
}

export function httpStatusOf(error: { readonly kind: ErrorKind; readonly code: string }): number {
  return STATUS_BY_CODE[error.code] ?? HTTP_STATUS[error.kind]
}
