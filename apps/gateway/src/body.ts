/** Bodies: JSON only, as UTF-8, checked against the schema of their route. */
import { isUtf8 } from 'node:buffer'
import { FaasError } from '@faas-platform/core'
import { bodyCheck, invalidRequest } from '@faas-platform/protocol'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { FastifyInstance } from 'fastify'
import type { TSchema } from 'typebox'

export function installBodies(app: FastifyInstance): void {
  app.removeAllContentTypeParsers()
  app.addContentTypeParser<Buffer>('application/json', { parseAs: 'buffer' }, (_request, body, done) => {
    // Clients send the header without a body to routes that take none.
    if (body.length === 0) {
      done(null, undefined)
      return
    }
    try {
      if (!isUtf8(body)) throw new SyntaxError('not valid UTF-8')
      done(null, JSON.parse(body.toString('utf8')))
    } catch (cause) {
      done(new FaasError('request/malformed-json', { message: `The request body is not JSON: ${cause instanceof Error ? cause.message : 'unreadable'}.`, cause }))
    }
  })

  // Some clients (aiohttp) name a type for a body that they do not send.
  app.addContentTypeParser('*', (request, _payload, done) => {
    if (request.headers['content-length'] === '0') done(null, undefined)
    else done(new FaasError('request/unsupported-media-type', { message: 'The request body must be JSON.', hint: 'Send the header "content-type: application/json".' }))
  })

  // Query strings and path parameters are text: they are coerced. Bodies are not.
  const textual = new Ajv2020({ coerceTypes: true, allErrors: true, strict: false, formats: { 'date-time': true } })
  app.setValidatorCompiler<TSchema>(({ schema, httpPart }) => {
    if (httpPart === 'body') {
      const check = bodyCheck<unknown>(schema)
      return (value) => settle(() => check.check(value ?? undefined))
    }
    const validate = textual.compile(schema)
    return (value) =>
      settle(() => {
        if (validate(value)) return value
        throw invalidRequest((validate.errors ?? []).map((error) => ({ path: error.instancePath, message: error.message ?? 'is not valid' })))
      })
  })
  // What is sent is what the reply functions made; tests hold it to the schemas. A serialiser that
  // drops what a schema does not name would hide mistakes.
  app.setSerializerCompiler(() => (value) => JSON.stringify(value))
}

function settle(check: () => unknown): { value: unknown } | { error: Error } {
  try {
    return { value: check() }
  } catch (thrown) {
    return { error: thrown instanceof Error ? thrown : new TypeError('validation failed') }
  }
}
