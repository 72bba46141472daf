/** Instances: sandboxes that live on. */
import { bytesToMibRound } from '@faas-platform/core'
import type { InstanceView } from '@faas-platform/executor'
import type { CreateInstanceBody as CreateBody, InstanceExecBody as ExecBody, InstanceReply as Reply } from '@faas-platform/protocol'
import {
  CreateInstanceBody, EmptyBody, ExecuteReply, FailedExecutionReply, InstanceExecBody, InstanceReply, timestamp,
  timestampOrNull, toEnv, toInstanceExecRequest, toPlacement,
} from '@faas-platform/protocol'
import type { FastifyInstance } from 'fastify'
import Type from 'typebox'
import { demandScope, reach } from '../access/identity.js'
import type { GatewayContext } from '../context.js'
import { wantsEventStream } from '../event-stream.js'
import { errorResponses } from '../openapi.js'
import { answerExecution, executionIdOf, idempotencyKeyOf, streamExecution } from './execute.js'
import { IdParams } from './executions.js'

const tags = ['instances']

export function instanceRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  const { executor } = gateway

  app.post<{ Body: CreateBody }>('/api/v1/instances', {
    config: { scope: 'instances' },
    schema: { tags, summary: 'Create an instance', body: CreateInstanceBody, response: { 200: InstanceReply, ...errorResponses(400, 401, 403, 404, 413, 415, 429, 500, 501, 502, 503) } },
  }, async (request) => {
    const { body } = request
    const placement = toPlacement(body, gateway.policy)
    if (placement.network.allowCidrs.length > 0 && gateway.keysDemanded) demandScope(request.identity, 'network')
    const client = gateway.disconnects.watch(request.raw.socket)
    try {
      const view = await executor.createInstance(
        {
          ...placement,
          name: body.name ?? null,
          env: toEnv(body.env_vars),
          labels: body.labels ?? {},
          ...(body.ttl_ms != null && { ttlMs: body.ttl_ms }),
          ...(body.idle_ms != null && { idleMsMax: body.idle_ms }),
        },
        { principal: request.identity.principal, signal: client.signal },
      )
      return instanceReply(view)
    } finally {
      client.done()
    }
  })

  app.get('/api/v1/instances', {
    config: { scope: 'read' },
    schema: { tags, summary: 'List instances', response: { 200: Type.Array(InstanceReply), ...errorResponses(401, 403) } },
  }, async (request) => executor.listInstances(request.identity.principal).map(instanceReply))

  app.get<{ Params: IdParams }>('/api/v1/instances/:id', {
    config: { scope: 'read' },
    schema: { tags, summary: 'Get an instance', params: IdParams, response: { 200: InstanceReply, ...errorResponses(400, 401, 403, 404) } },
  }, async (request) => instanceReply(executor.getInstance(request.params.id, reach(request.identity))))

  app.post<{ Params: IdParams; Body: ExecBody }>('/api/v1/instances/:id/exec', {
    config: { scope: 'instances' },
    schema: {
      tags, summary: 'Run a command in an instance', params: IdParams, body: InstanceExecBody,
      response: { 200: ExecuteReply, 504: FailedExecutionReply, ...errorResponses(400, 401, 403, 404, 409, 413, 415, 429, 499, 500, 503) },
    },
  }, async (request, reply) => {
    const instance = executor.getInstance(request.params.id, reach(request.identity))
    const wanted = toInstanceExecRequest(request.body, instance.id, gateway.policy)
    const idempotencyKey = idempotencyKeyOf(request)
    const call = { principal: instance.principal, id: executionIdOf(gateway, request), ...(idempotencyKey !== undefined && { idempotencyKey }) }
    const answer = request.body.stream === true || wantsEventStream(request) ? streamExecution : answerExecution
    return answer(gateway, request, reply, (context) => executor.execInInstance(instance.id, wanted, { ...call, ...context }), call.id)
  })

  app.post<{ Params: IdParams; Body: EmptyBody }>('/api/v1/instances/:id/stop', {
    config: { scope: 'instances', endsWork: true },
    schema: { tags, summary: 'Stop an instance; its record stays', params: IdParams, response: { 204: Type.Null(), ...errorResponses(400, 401, 403, 404, 409, 500) } },
  }, async (request, reply) => {
    await executor.stopInstance(request.params.id, reach(request.identity))
    return reply.code(204).send()
  })

  app.delete<{ Params: IdParams }>('/api/v1/instances/:id', {
    config: { scope: 'instances', endsWork: true },
    schema: { tags, summary: 'Stop an instance and forget it', params: IdParams, response: { 204: Type.Null(), ...errorResponses(400, 401, 403, 404, 409, 500) } },
  }, async (request, reply) => {
    await executor.deleteInstance(request.params.id, reach(request.identity))
    return reply.code(204).send()
  })
}

export function instanceReply(view: InstanceView): Reply {
  return {
    id: view.id,
    instance_id: view.id,
    name: view.name,
    image: view.image,
    image_digest: view.imageDigest,
    status: view.state,
    message: view.message,
    created_at: timestamp(view.createdAtMs),
    last_used_at: timestamp(view.lastUsedAtMs),
    expires_at: timestampOrNull(view.expiresAtMs),
    cpu_cores: view.limits.cpuCores,
    memory_mb: bytesToMibRound(view.limits.memoryBytes),
    runtime: view.runtime,
    network: view.network.mode,
    endpoints: {},
    labels: { ...view.labels },
    active_executions: view.active,
    created_by: view.createdBy,
  }
}
