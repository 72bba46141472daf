/** Messages of the WebSocket routes: the original's types, plus what a client can not do without (`stream` of an exec, `id`s). */
import type { Static } from 'typebox'
import Type from 'typebox'
import { Command, EnvVars } from './execute-body.js'
import { maybe, nullable, oneOf } from './schema-parts.js'

/** Client → server. One JSON object in each text frame. */
export const ClientMessage = Type.Union(
  [
    Type.Object({ type: Type.Literal('stdin'), data: Type.String() }),
    Type.Object({ type: Type.Literal('exec'), command: Command, env_vars: maybe(EnvVars, 'Environment.'), timeout_ms: maybe(Type.Integer({ minimum: 1 }), 'Wall time, ms.') }),
    Type.Object({ type: Type.Literal('get_state') }),
    Type.Object({ type: Type.Literal('checkpoint'), name: maybe(Type.String(), 'Name.') }),
    Type.Object({ type: Type.Literal('stop') }),
  ],
  { title: 'a message of type stdin, exec, get_state, checkpoint or stop' },
)
export type ClientMessage = Static<typeof ClientMessage>

/** Server → client. */
export const ServerMessage = Type.Union(
  [
    Type.Object({ type: oneOf(['stdout', 'stderr']), data: Type.String(), data_base64: Type.Optional(Type.String()), seq: Type.Optional(Type.Integer()), execution_id: Type.Optional(Type.String()) }),
    Type.Object({ type: Type.Literal('exit'), code: Type.Integer(), signal: Type.Optional(nullable(Type.String())), outcome: Type.Optional(Type.String()), execution_id: Type.Optional(Type.String()) }),
    Type.Object({ type: Type.Literal('custom'), name: Type.String(), data: Type.Unknown() }),
    Type.Object({ type: Type.Literal('error'), error: Type.Object({ code: Type.String(), message: Type.String(), hint: nullable(Type.String()) }) }),
    Type.Object({ type: Type.Literal('heartbeat') }),
  ],
  { title: 'ServerMessage' },
)
export type ServerMessage = Static<typeof ServerMessage>
