/** Execution events on the wire, as server-sent events and as JSON lines of a log. */
import { Buffer, isUtf8 } from 'node:buffer'
import type { ExecutionEvent } from '@faas-platform/core'
import type { Static } from 'typebox'
import Type from 'typebox'
import { ExecuteReply, executeReply, ExecutionStateName } from './execute-reply.js'
import { oneOf, Timestamp, timestamp } from './schema-parts.js'

export const StateEvent = Type.Object({ seq: Type.Integer(), type: Type.Literal('state'), state: ExecutionStateName, at: Timestamp })
export const OutputEvent = Type.Object({
  seq: Type.Integer(),
  type: oneOf(['stdout', 'stderr']),
  data: Type.Optional(Type.String({ description: 'The chunk, when it is valid UTF-8 by itself.' })),
  data_base64: Type.Optional(Type.String({ description: 'The chunk otherwise.' })),
  at: Timestamp,
})
export const EndEvent = Type.Object({ seq: Type.Integer(), type: Type.Literal('end'), result: ExecuteReply, at: Timestamp })
export const WireEvent = Type.Union([StateEvent, OutputEvent, EndEvent], { title: 'ExecutionEvent' })
export type WireEvent = Static<typeof WireEvent>

export const LogReply = Type.Object(
  {
    request_id: Type.String(),
    status: ExecutionStateName,
    entries: Type.Array(Type.Union([StateEvent, OutputEvent])),
    next_seq: Type.Integer({ minimum: 0, description: 'Give it as `from_seq` for the next page.' }),
    complete: Type.Boolean({ description: 'The execution has ended and nothing follows.' }),
  },
  { title: 'LogPage' },
)
export type LogReply = Static<typeof LogReply>

export function wireEvent(event: ExecutionEvent): WireEvent {
  const at = timestamp(event.atMs)
  switch (event.type) {
    case 'state':
      return { seq: event.seq, type: 'state', state: event.state, at }
    case 'end':
      return { seq: event.seq, type: 'end', result: executeReply(event.result), at }
    default: {
      const bytes = Buffer.from(event.bytes.buffer, event.bytes.byteOffset, event.bytes.byteLength)
      return { seq: event.seq, type: event.type, ...(isUtf8(bytes) ? { data: bytes.toString('utf8') } : { data_base64: bytes.toString('base64') }), at }
    }
  }
}

/** One server-sent event; its id is the sequence number, so that `Last-Event-ID` resumes. JSON never holds a raw line end. */
export function sseFrame(type: string, data: unknown, id?: number): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`
}
