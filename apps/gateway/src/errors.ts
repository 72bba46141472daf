/** Anything thrown → the one error body. The only place that turns errors into HTTP. */
import { FaasError, toFaasError } from '@faas-platform/core'
import { errorBody, httpStatusOf } from '@faas-platform/protocol'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import type { GatewayCounters } from './telemetry/counters.js'

const RETRY_AFTER_S = 1

/** Fastify's own refusals, in the platform's words. */
const FASTIFY_ERRORS: Readonly<Record<string, (error: FastifyError) => FaasError>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: () => new FaasError('request/too-large', { message: 'The request body is too large.', hint: 'FAAS_MAX_BODY_BYTES sets the limit of this gateway.' }),
  FST_ERR_CTP_INVALID_MEDIA_TYPE: () =>
    new FaasError('request/unsupported-media-type', { message: 'The request body must be JSON.', hint: 'Send the header "content-type: application/json".' }),
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: () => new FaasError('request/invalid', { message: 'The body is not as long as content-length says.' }),
  FST_ERR_BAD_URL: () => new FaasError('request/invalid', { message: 'The path is not a valid URL path.' }),
  FST_ERR_MAX_PARAM_LENGTH: () => new FaasError('request/invalid', { message: 'A part of the path is too long.' }),
}

export function errorOf(thrown: unknown): FaasError {
  if (thrown instanceof FaasError) return thrown
  const code: unknown = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
  const translate = typeof code === 'string' ? FASTIFY_ERRORS[code] : undefined
  if (translate !== undefined) return translate(thrown as FastifyError)
  return isRefusal(thrown) ? new FaasError('request/invalid', { message: 'The request is not one that this gateway understands.', cause: thrown }) : toFaasError(thrown)
}

/** Errors of Fastify and its plugins that say by their status that the request is to blame. */
function isRefusal(thrown: unknown): boolean {
  return thrown instanceof Error && 'statusCode' in thrown && typeof thrown.statusCode === 'number' && thrown.statusCode >= 400 && thrown.statusCode < 500
}

/** @param requestId The execution's id where the error belongs to one. */
export async function sendError(request: FastifyRequest, reply: FastifyReply, thrown: unknown, counters: GatewayCounters, requestId = request.id): Promise<void> {
  const error = errorOf(thrown)
  const status = httpStatusOf(error)
  if (error.kind === 'internal') request.log.error({ err: error, cause: error.cause, execution: requestId }, 'request failed')
  if (error.kind === 'rate_limited') counters.rateLimited++
  if (error.kind === 'unauthenticated') counters.authFailures++
  setRetryAfter(reply, error)
  if (status === 401) void reply.header('www-authenticate', 'Bearer')
  await reply.code(status).type('application/json').send(errorBody(error, requestId))
}

function setRetryAfter(reply: FastifyReply, error: FaasError): void {
  if (error.kind !== 'rate_limited' && error.kind !== 'unavailable') return
  const afterMs: unknown = error.details?.['retryAfterMs']
  void reply.header('retry-after', String(typeof afterMs === 'number' ? Math.max(1, Math.ceil(afterMs / 1000)) : RETRY_AFTER_S))
}
