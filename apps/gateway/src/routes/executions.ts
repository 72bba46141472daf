/** Executions after they were accepted: list, get, cancel, logs. */
import type { ExecutionId, ExecutionState, InstanceId } from '@faas-platform/core'
import { asId, EXECUTION_STATES, isFinal } from '@faas-platform/core'
import { ExecutionListReply, ExecutionReply, executionReply, executionSummaryReply, LogReply, EmptyBody } from '@faas-platform/protocol'
import type { FastifyInstance } from 'fastify'
import type { Static } from 'typebox'
import Type from 'typebox'
import { hasScope, reach } from '../access/identity.js'
import type { GatewayContext } from '../context.js'
import { readLog } from '../log-page.js'
import { errorResponses } from '../openapi.js'

const STATES = Object.keys(EXECUTION_STATES) as ExecutionState[]
/** One word for every state that is not final. */
const ACTIVE = 'active'

export const IdParams = Type.Object({ id: Type.String({ minLength: 1, maxLength: 128 }) })
export type IdParams = Static<typeof IdParams>

const ListQuery = Type.Object({
  state: Type.Optional(Type.String({ description: `One or more of ${STATES.join(', ')}, comma-separated; \`${ACTIVE}\` means every one that is not over.`, pattern: `^(${[ACTIVE, ...STATES].join('|')})(,(${[ACTIVE, ...STATES].join('|')}))*$` })),
  instance_id: Type.Optional(Type.String({ minLength: 1, maxLength: 128 })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, default: 50 })),
  cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 512 })),
  all: Type.Optional(Type.Boolean({ description: 'Of every principal; needs the scope `admin`.' })),
})
type ListQuery = Static<typeof ListQuery>

const LogQuery = Type.Object({
  from_seq: Type.Optional(Type.Integer({ minimum: 0, description: 'First event wanted; `next_seq` of the last page.' })),
  limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 1000 })),
  wait_ms: Type.Optional(Type.Integer({ minimum: 0, maximum: 30_000, default: 0, description: 'Wait this long for the first new entry.' })),
  format: Type.Optional(Type.Unsafe<'json' | 'text'>({ type: 'string', enum: ['json', 'text'], default: 'json' })),
})
type LogQuery = Static<typeof LogQuery>

export function executionRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  const { executor } = gateway

  app.get<{ Querystring: ListQuery }>('/api/v1/executions', {
    config: { scope: 'read' },
    schema: { tags: ['executions'], summary: 'List executions, newest first', querystring: ListQuery, response: { 200: ExecutionListReply, ...errorResponses(400, 401, 403) } },
  }, async (request) => {
    const { state, instance_id: instanceId, limit, cursor, all } = request.query
    const page = await executor.list(
      {
        limit: limit ?? 50,
        ...(state !== undefined && { states: statesOf(state) }),
        ...(instanceId !== undefined && { instanceId: asId<InstanceId>(instanceId) }),
        ...(cursor !== undefined && { cursor }),
      },
      all === true && hasScope(request.identity, 'admin') ? null : request.identity.principal,
    )
    return { executions: page.executions.map(executionSummaryReply), next_cursor: page.nextCursor }
  })

  app.get<{ Params: IdParams }>('/api/v1/executions/:id', {
    config: { scope: 'read' },
    schema: { tags: ['executions'], summary: 'Get an execution, with its result once it ended', params: IdParams, response: { 200: ExecutionReply, ...errorResponses(400, 401, 403, 404) } },
  }, async (request) => executionReply(await executor.get(asId<ExecutionId>(request.params.id), reach(request.identity))))

  const cancelSchema = { tags: ['executions'], params: IdParams, response: { 200: ExecutionReply, ...errorResponses(400, 401, 403, 404, 409) } }
  app.post<{ Params: IdParams; Body: EmptyBody }>('/api/v1/executions/:id/cancel', {
    config: { scope: 'execute', endsWork: true },
    schema: { ...cancelSchema, summary: 'End an execution and wait until it has ended' },
  }, async (request) => executionReply(await executor.cancel(asId<ExecutionId>(request.params.id), reach(request.identity))))
  app.delete<{ Params: IdParams }>('/api/v1/executions/:id', {
    config: { scope: 'execute', endsWork: true },
    schema: { ...cancelSchema, summary: 'End an execution (alias of cancel)' },
  }, async (request) => executionReply(await executor.cancel(asId<ExecutionId>(request.params.id), reach(request.identity))))

  app.get<{ Params: IdParams; Querystring: LogQuery }>('/api/v1/executions/:id/logs', {
    config: { scope: 'read' },
    schema: {
      tags: ['executions'], summary: 'Read the log, page by page', params: IdParams, querystring: LogQuery,
      description: 'With `format=text` the answer is the output itself, in order of arrival; the header `x-next-seq` has the cursor.',
      response: { 200: LogReply, ...errorResponses(400, 401, 403, 404) },
    },
  }, async (request, reply) => {
    const client = gateway.disconnects.watch(request.raw.socket)
    try {
      const { from_seq: fromSeq = 0, limit = 1000, wait_ms: waitMs = 0, format = 'json' } = request.query
      const page = await readLog(executor, asId<ExecutionId>(request.params.id), reach(request.identity), { fromSeq, limit, waitMs, signal: client.signal })
      if (format === 'json') return page.reply
      // Bytes as they were written: `send` of a Buffer skips the serialiser.
      return await reply.header('x-next-seq', String(page.reply.next_seq)).type('text/plain; charset=utf-8').send(page.text)
    } finally {
      client.done()
    }
  })
}

/** `text` as the schema of the list route lets it pass. */
function statesOf(text: string): readonly ExecutionState[] {
  const active = STATES.filter((state) => !isFinal(EXECUTION_STATES, state))
  return [...new Set(text.split(',').flatMap((name) => (name === ACTIVE ? active : [name as ExecutionState])))]
}
