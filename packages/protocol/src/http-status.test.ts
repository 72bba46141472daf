import { ERROR_CODES, ERROR_KINDS, FaasError } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { errorBody } from './error-body.js'
import { HTTP_STATUS, httpStatusOf } from './http-status.js'

it('every kind of error has one status, of the 4xx or 5xx classes', () => {
  expect(Object.keys(HTTP_STATUS).sort()).toEqual([...ERROR_KINDS].sort())
  expect(Object.values(HTTP_STATUS).every((status) => status >= 400 && status <= 599)).toBe(true)
})

it.each([
  ['request/invalid', 400], ['auth/missing-key', 401], ['auth/missing-scope', 403], ['image/not-found', 404], ['execution/not-running', 409],
  ['request/too-large', 413], ['request/unsupported-media-type', 415], ['admission/queue-full', 429], ['execution/cancelled', 499],
  ['internal/bug', 500], ['mode/unsupported', 501], ['image/pull-failed', 502], ['admission/draining', 503], ['execution/deadline', 504],
  ['execution/disk-limit', 507],
] as const)('%s is answered with %i', (code, status) => {
  expect(httpStatusOf(new FaasError(code, { message: 'x' }))).toBe(status)
})

it('every code has a status', () => {
  for (const code of Object.keys(ERROR_CODES) as (keyof typeof ERROR_CODES)[]) expect(httpStatusOf(new FaasError(code, { message: 'x' }))).toBeGreaterThanOrEqual(400)
})

it('an error body has exactly its four fields and the request id', () => {
  expect(errorBody(new FaasError('internal/bug', { message: 'm', cause: new Error('secret') }), 'r')).toEqual({
    error: { code: 'internal/bug', message: 'm', hint: null, details: null }, request_id: 'r',
  })
})
