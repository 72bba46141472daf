/** Following an execution: server-sent events, WebSocket on the same path, and the original's line stream. */
import { StringDecoder } from 'node:string_decoder'
import type { ExecutionId } from '@faas-platform/core'
import { asId, EXECUTION_STATES, isFinal } from '@faas-platform/core'
import { invalidRequest } from '@faas-platform/protocol'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import Type from 'typebox'
import { reach } from '../access/identity.js'
import type { GatewayContext } from '../context.js'
import { EventStream } from '../event-stream.js'
import { errorResponses } from '../openapi.js'
import { followSocket } from '../sockets/follow-socket.js'
import { IdParams } from './executions.js'

const StreamQuery = Type.Object({ from_seq: Type.Optional(Type.Integer({ minimum: 0, description: 'First event wanted. The header `last-event-id` beats it.' })) })
type StreamQuery = Static<typeof StreamQuery>
type StreamRequest = FastifyRequest<{ Params: IdParams; Querystring: StreamQuery }>

export function streamRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  app.route<{ Params: IdParams; Querystring: StreamQuery }>({
    method: 'GET',
    url: '/api/v1/executions/:id/stream',
    config: { scope: 'read' },
    schema: {
      tags: ['executions'], summary: 'Follow an execution', params: IdParams, querystring: StreamQuery,
      description: 'Server-sent events `state`, `stdout`, `stderr` and `end`, replayed from the wanted one and then live; ids are sequence numbers. The same path speaks WebSocket.',
      response: { 200: Type.String({ description: '`text/event-stream`' }), 204: Type.Null({ description: 'Nothing follows: the client has seen the end.' }), ...errorResponses(400, 401, 403, 404, 429) },
    },
    handler: (request, reply) => follow(gateway, request, reply),
    wsHandler: (socket, request) => followSocket(gateway, socket, request, { id: request.params.id, fromSeq: fromSeqOf(request) }),
  })

  app.get<{ Params: IdParams }>('/api/v1/logs/:id/stream', {
    config: { scope: 'read' },
    schema: {
      tags: ['executions'], summary: 'Follow the output as plain lines', params: IdParams,
      description: 'Lines of both streams without any prefix, as the original clients pass them through; ends when the execution has ended.',
      response: { 200: Type.String({ description: '`text/event-stream` by name, plain lines by content' }), ...errorResponses(400, 401, 403, 404, 429) },
    },
  }, (request, reply) => followLines(gateway, request, reply))
}

async function follow(gateway: GatewayContext, request: StreamRequest, reply: FastifyReply): Promise<FastifyReply> {
  const id = asId<ExecutionId>(request.params.id)
  const fromSeq = fromSeqOf(request)
  const record = await gateway.executor.get(id, reach(request.identity))
  const client = gateway.disconnects.watch(request.raw.socket)
  const stream = new EventStream(gateway, request, reply)
  try {
    const events = gateway.executor.subscribe(id, reach(request.identity), { fromSeq, signal: client.signal })
    if (!isFinal(EXECUTION_STATES, record.state)) stream.start()
    // The end is replayed to everybody; who names an event after it has seen it.
    for await (const event of events) if (event.seq >= fromSeq) await stream.event(event)
    // 204 tells an EventSource not to come back: it has everything.
    if (!stream.started) return await reply.code(204).send()
  } catch (thrown) {
    if (!stream.started) throw thrown
    if (!client.signal.aborted) await stream.error(thrown, id)
  } finally {
    client.done()
    stream.close()
  }
  return reply
}

const LINE_CHARS_MAX = 64 * 1024

async function followLines(gateway: GatewayContext, request: FastifyRequest<{ Params: IdParams }>, reply: FastifyReply): Promise<FastifyReply> {
  const id = asId<ExecutionId>(request.params.id)
  await gateway.executor.get(id, reach(request.identity))
  const client = gateway.disconnects.watch(request.raw.socket)
  const stream = new EventStream(gateway, request, reply, { heartbeat: 'none' })
  const lines = { stdout: new LineCutter(), stderr: new LineCutter() }
  try {
    stream.start()
    for await (const event of gateway.executor.subscribe(id, reach(request.identity), { signal: client.signal })) {
      if (event.type === 'stdout' || event.type === 'stderr') {
        const whole = lines[event.type].push(event.bytes)
        if (whole !== '') await stream.send(whole)
      } else if (event.type === 'end') {
        await stream.send(lines.stdout.rest() + lines.stderr.rest())
      }
    }
  } catch (thrown) {
    // The lines have no room for an error: a stream that is cut says that something is missing.
    if (!client.signal.aborted) {
      request.log.error({ err: thrown, execution: id }, 'line stream failed')
      reply.raw.destroy()
    }
  } finally {
    client.done()
    stream.close()
  }
  return reply
}

/** Whole lines of one stream; a line that never ends is cut at `LINE_CHARS_MAX`. */
class LineCutter {
  readonly #decoder = new StringDecoder('utf8')
  #open = ''

  push(bytes: Uint8Array): string {
    const text = this.#open + this.#decoder.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    const end = text.lastIndexOf('\n') + 1
    this.#open = text.slice(end)
    if (this.#open.length <= LINE_CHARS_MAX) return text.slice(0, end)
    const long = this.#open
    this.#open = ''
    return `${text.slice(0, end)}${long}\n`
  }

  rest(): string {
    const text = this.#open + this.#decoder.end()
    return text === '' ? '' : `${text}\n`
  }
}

/** @throws FaasError `request/invalid` */
function fromSeqOf(request: StreamRequest): number {
  const last = request.headers['last-event-id']
  if (last === undefined || last === '') return request.query.from_seq ?? 0
  if (typeof last === 'string' && /^\d{1,15}$/.test(last)) return Number(last) + 1
  throw invalidRequest([{ path: 'header last-event-id', message: 'must be an event id of this stream' }])
}
