/** The one error body of every route. */
import type { FaasError } from '@faas-platform/core'
import { ERROR_CODES } from '@faas-platform/core'
import type { Static } from 'typebox'
import Type from 'typebox'
import { nullable } from './schema-parts.js'

export const ErrorDetail = Type.Object({
  code: Type.String({ description: 'Stable; docs/errors.md lists all.', examples: Object.keys(ERROR_CODES).slice(0, 3) }),
  message: Type.String({ description: 'For people.' }),
  hint: nullable(Type.String(), 'What to do next.'),
  details: nullable(Type.Record(Type.String(), Type.Unknown()), 'Facts for programs.'),
})

export const ErrorBody = Type.Object({ error: ErrorDetail, request_id: Type.String() }, { title: 'Error', additionalProperties: true })
export type ErrorBody = Static<typeof ErrorBody>

export function errorBody(error: FaasError, requestId: string): ErrorBody {
  return {
    error: { code: error.code, message: error.message, hint: error.hint ?? null, details: error.details ?? null },
    request_id: requestId,
  }
}
