/** API keys over HTTP: the process holds the data directory, so that this is how keys change while it runs. */
import type { KeyRecord } from '@faas-platform/core'
import { LIFETIME_MS_MAX, timestamp, timestampOrNull } from '@faas-platform/protocol'
import type { FastifyInstance } from 'fastify'
import type { Static } from 'typebox'
import Type from 'typebox'
import type { Scope } from '../access/keys.js'
import { createKey, DEFAULT_SCOPES, revokeKey, SCOPES } from '../access/keys.js'
import type { GatewayContext } from '../context.js'
import { errorResponses } from '../openapi.js'
import { IdParams } from './executions.js'

const ScopeName = Type.Unsafe<Scope>({ type: 'string', enum: [...SCOPES] })
const CreateKeyBody = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 128 }),
    scopes: Type.Optional(Type.Array(ScopeName, { minItems: 1, description: `Default ${DEFAULT_SCOPES.join(', ')}.` })),
    principal: Type.Optional(Type.String({ minLength: 1, maxLength: 128, description: 'Keys of one principal share what they made. Default: one of its own.' })),
    expires_in_ms: Type.Optional(Type.Integer({ minimum: 1000, maximum: LIFETIME_MS_MAX })),
  },
  { additionalProperties: true, title: 'CreateKeyRequest' },
)
type CreateKeyBody = Static<typeof CreateKeyBody>

const nullableTime = Type.Union([Type.String({ format: 'date-time' }), Type.Null()])
const keyFields = {
  id: Type.String(), name: Type.String(), principal: Type.String(), prefix: Type.String(), scopes: Type.Array(Type.String()),
  created_at: Type.String({ format: 'date-time' }), expires_at: nullableTime, revoked_at: nullableTime, last_used_at: nullableTime,
}
const KeyReply = Type.Object(keyFields, { title: 'Key' })
type KeyReply = Static<typeof KeyReply>
const NewKeyReply = Type.Object({ ...keyFields, key: Type.String({ description: 'Shown this once.' }) }, { title: 'NewKey' })

const tags = ['keys']

export function keyRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  const { ledger, clock, ids } = gateway
  app.post<{ Body: CreateKeyBody }>('/api/v1/keys', {
    config: { scope: 'admin' },
    schema: { tags, summary: 'Create a key', body: CreateKeyBody, response: { 200: NewKeyReply, ...errorResponses(400, 401, 403, 413, 415) } },
  }, async (request) => {
    const { name, scopes, principal, expires_in_ms: expiresInMs } = request.body
    const { key, record } = await createKey(
      ledger,
      { name, scopes: scopes ?? DEFAULT_SCOPES, expiresAtMs: expiresInMs === undefined ? null : clock.nowMs() + expiresInMs, ...(principal !== undefined && { principal }) },
      { clock, ids },
    )
    return { ...keyReply(record), key }
  })

  app.get('/api/v1/keys', {
    config: { scope: 'admin' },
    schema: { tags, summary: 'List keys', response: { 200: Type.Array(KeyReply), ...errorResponses(401, 403) } },
  }, async () => (await ledger.listKeys()).map(keyReply))

  app.delete<{ Params: IdParams }>('/api/v1/keys/:id', {
    config: { scope: 'admin' },
    schema: { tags, summary: 'Revoke a key', params: IdParams, response: { 204: Type.Null(), ...errorResponses(400, 401, 403, 404) } },
  }, async (request, reply) => {
    await revokeKey(ledger, request.params.id, clock.nowMs())
    gateway.keys.forget()
    return reply.code(204).send()
  })
}

/** Without the hash: nobody needs it. */
function keyReply(record: KeyRecord): KeyReply {
  return {
    id: record.id, name: record.name, principal: record.principal, prefix: record.prefix, scopes: [...record.scopes],
    created_at: timestamp(record.createdAtMs), expires_at: timestampOrNull(record.expiresAtMs), revoked_at: timestampOrNull(record.revokedAtMs),
    last_used_at: timestampOrNull(record.lastUsedAtMs),
  }
}
