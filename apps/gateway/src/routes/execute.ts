/** `POST /api/v1/execute` and its aliases: synchronous, streamed, or asynchronous. */
import type { ExecutionId, ExecutionResult } from '@faas-platform/core'
import { asId } from '@faas-platform/core'
import type { ExecuteBody as Body } from '@faas-platform/protocol'
import {
  AcceptedReply, acceptedReply, ExecuteBody, ExecuteReply, executeReply, FailedExecutionReply, failedExecutionReply, failureOf, httpStatusOf,
  invalidRequest, toExecuteRequest,
} from '@faas-platform/protocol'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { demandScope } from '../access/identity.js'
import type { GatewayContext } from '../context.js'
import { sendError } from '../errors.js'
import { errorResponses } from '../openapi.js'
import { EventStream, wantsEventStream } from '../event-stream.js'

const PATHS = [
  { url: '/api/v1/execute', summary: 'Run a command' },
  { url: '/api/v1/execute/advanced', summary: 'Run a command (alias)' },
  { url: '/api/v1/execute-advanced', summary: 'Run a command (alias)' },
] as const

export function executeRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  for (const { url, summary } of PATHS) {
    app.post<{ Body: Body }>(url, {
      config: { scope: 'execute' },
      schema: {
        tags: ['executions'],
        summary,
        description:
          'Answers when the command has ended: 200 whatever its exit code, 504 with what was captured when it ran into its deadline. '
          + 'With `async: true` answers 202 at once. With `accept: text/event-stream` or `stream: true` answers with server-sent events '
          + '`state`, `stdout`, `stderr` and `end`. The header `idempotency-key` makes a repeated call join the first.',
        body: ExecuteBody,
        response: { 200: ExecuteReply, 202: AcceptedReply, 504: FailedExecutionReply, ...errorResponses(400, 401, 403, 404, 409, 413, 415, 429, 499, 500, 501, 502, 503, 507) },
      },
    }, (request, reply) => execute(gateway, request, reply))
  }
}

async function execute(gateway: GatewayContext, request: FastifyRequest<{ Body: Body }>, reply: FastifyReply): Promise<FastifyReply> {
  const wanted = toExecuteRequest(request.body, gateway.policy)
  if (wanted.network.allowCidrs.length > 0 && gateway.keysDemanded) demandScope(request.identity, 'network')
  const idempotencyKey = idempotencyKeyOf(request)
  const call = { principal: request.identity.principal, id: executionIdOf(gateway, request), ...(idempotencyKey !== undefined && { idempotencyKey }) }

  if (request.body.async === true) {
    const accepted = await gateway.executor.submit(wanted, call)
    return reply.code(202).header('location', `/api/v1/executions/${accepted.id}`).send(acceptedReply(accepted))
  }
  if (request.body.stream === true || wantsEventStream(request)) {
    return streamExecution(gateway, request, reply, (context) => gateway.executor.run(wanted, { ...call, ...context }), call.id)
  }
  return answerExecution(gateway, request, reply, (context) => gateway.executor.run(wanted, { ...call, ...context }), call.id)
}

type Run = (context: { readonly signal: AbortSignal; readonly onEvent?: NonNullable<Parameters<GatewayContext['executor']['run']>[1]['onEvent']> }) => Promise<ExecutionResult>

/** Runs and answers with the whole result; ends the run when the client goes away before. */
export async function answerExecution(gateway: GatewayContext, request: FastifyRequest, reply: FastifyReply, run: Run, id: ExecutionId): Promise<FastifyReply> {
  const client = gateway.disconnects.watch(request.raw.socket)
  try {
    const result = await run({ signal: client.signal })
    observe(gateway, result)
    const failure = failureOf(result)
    if (failure === null) return await reply.code(200).send(executeReply(result))
    return await reply.code(httpStatusOf(failure)).send(failedExecutionReply(result, failure))
  } catch (thrown) {
    await sendError(request, reply, thrown, gateway.counters, id)
    return reply
  } finally {
    client.done()
  }
}

/** Runs and streams every event; nothing is sent before the run is accepted, so that a refusal keeps its status. */
export async function streamExecution(gateway: GatewayContext, request: FastifyRequest, reply: FastifyReply, run: Run, id: ExecutionId): Promise<FastifyReply> {
  const client = gateway.disconnects.watch(request.raw.socket)
  const stream = new EventStream(gateway, request, reply)
  try {
    const result = await run({ signal: client.signal, onEvent: (event) => stream.event(event) })
    observe(gateway, result)
    // A repeated idempotency key joins a run that ended before: its events are over, its result is not.
    await stream.ensureEnd(result)
  } catch (thrown) {
    if (!stream.started) {
      await sendError(request, reply, thrown, gateway.counters, id)
      return reply
    }
    await stream.error(thrown, id)
  } finally {
    client.done()
    stream.close()
  }
  return reply
}

function observe(gateway: GatewayContext, result: ExecutionResult): void {
  if (result.start === null) return
  const latency = gateway.counters.startLatency[result.start]
  latency.count++
  latency.sumMs += result.endedAtMs - result.createdAtMs
}

/** The request's own id, unless the caller chose that: two requests may carry the same, two executions may not. */
export function executionIdOf(gateway: GatewayContext, request: FastifyRequest): ExecutionId {
  return asId<ExecutionId>(request.headers['x-request-id'] === undefined ? request.id : gateway.ids.uuid())
}

const IDEMPOTENCY_KEY = /^[\x21-\x7e]{1,255}$/

/** @throws FaasError `request/invalid` */
export function idempotencyKeyOf(request: FastifyRequest): string | undefined {
  const key = request.headers['idempotency-key']
  if (key === undefined) return undefined
  if (typeof key === 'string' && IDEMPOTENCY_KEY.test(key)) return key
  throw invalidRequest([{ path: 'header idempotency-key', message: 'must be 1 to 255 visible ASCII characters' }])
}
