/** A WebSocket that follows one execution: output as it happens, replayed from the wanted event, then the exit. */
import { Buffer, isUtf8 } from 'node:buffer'
import type { ExecutionEvent, ExecutionId, ExecutionResult } from '@faas-platform/core'
import { asId } from '@faas-platform/core'
import type { ServerMessage } from '@faas-platform/protocol'
import type { WebSocket } from '@fastify/websocket'
import type { FastifyRequest } from 'fastify'
import { reach } from '../access/identity.js'
import type { GatewayContext } from '../context.js'
import { openJsonSocket } from './json-socket.js'

export async function followSocket(gateway: GatewayContext, raw: WebSocket, request: FastifyRequest, wanted: { readonly id: string; readonly fromSeq: number }): Promise<void> {
  const socket = openJsonSocket(gateway, raw)
  if (socket === null) return
  try {
    const events = gateway.executor.subscribe(asId<ExecutionId>(wanted.id), reach(request.identity), { fromSeq: wanted.fromSeq, signal: socket.signal })
    for await (const event of events) if (event.seq >= wanted.fromSeq) await socket.send(messageOf(event, wanted.id))
    socket.close(1000, 'ended')
  } catch (thrown) {
    if (socket.signal.aborted) return
    await socket.error(thrown)
    socket.close(1008, 'refused')
  }
}

export function messageOf(event: ExecutionEvent, executionId: string): ServerMessage {
  switch (event.type) {
    case 'state':
      return { type: 'custom', name: 'execution_state', data: { state: event.state, seq: event.seq, execution_id: executionId } }
    case 'end':
      return exitMessage(event.result)
    default:
      return { type: event.type, ...chunk(event.bytes), seq: event.seq, execution_id: executionId }
  }
}

export function exitMessage(result: ExecutionResult): ServerMessage {
  return { type: 'exit', code: result.exitCode ?? -1, signal: result.signal, outcome: result.outcome, execution_id: result.id }
}

/** `data` always, as the original sends it; the exact bytes beside it when they are not text. */
export function chunk(bytes: Uint8Array): { readonly data: string; readonly data_base64?: string } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return isUtf8(buffer) ? { data: buffer.toString('utf8') } : { data: buffer.toString('utf8'), data_base64: buffer.toString('base64') }
}
