/** Executions as the list and get routes show them. Environment values and input never leave the gateway. */
import type { ExecutionRecord, ExecutionSummary } from '@faas-platform/core'
import { EXECUTION_MODES, OUTCOMES, RUNTIME_NAMES } from '@faas-platform/core'
import type { Static } from 'typebox'
import Type from 'typebox'
import { ExecuteReply, executeReply, ExecutionStateName } from './execute-reply.js'
import { nullable, oneOf, TextMap, Timestamp, timestamp, timestampOrNull } from './schema-parts.js'

const shared = {
  request_id: Type.String(),
  status: ExecutionStateName,
  kind: oneOf(['sync', 'async']),
  command: Type.Array(Type.String(), { description: 'argv' }),
  image: Type.String(),
  mode: oneOf(EXECUTION_MODES),
  instance_id: nullable(Type.String()),
  labels: TextMap,
  created_at: Timestamp,
  started_at: nullable(Timestamp),
  ended_at: nullable(Timestamp),
}

export const ExecutionSummaryReply = Type.Object(
  { ...shared, runtime: nullable(oneOf(RUNTIME_NAMES)), outcome: nullable(oneOf(OUTCOMES)), exit_code: nullable(Type.Integer()) },
  { title: 'ExecutionSummary' },
)
export type ExecutionSummaryReply = Static<typeof ExecutionSummaryReply>

export const ExecutionListReply = Type.Object(
  { executions: Type.Array(ExecutionSummaryReply), next_cursor: nullable(Type.String(), 'Null on the last page.') },
  { title: 'ExecutionList' },
)
export type ExecutionListReply = Static<typeof ExecutionListReply>

export const ExecutionReply = Type.Object(
  { ...shared, attempt: Type.Integer({ minimum: 0 }), timeout_ms: Type.Number(), result: nullable(ExecuteReply, 'Null until it ended.') },
  { title: 'Execution' },
)
export type ExecutionReply = Static<typeof ExecutionReply>

export const AcceptedReply = Type.Object(
  {
    request_id: Type.String(), status: ExecutionStateName, container_id: Type.String(),
    links: Type.Object({ self: Type.String(), stream: Type.String(), logs: Type.String(), cancel: Type.String() }),
  },
  { title: 'Accepted' },
)
export type AcceptedReply = Static<typeof AcceptedReply>

export function executionSummaryReply(summary: ExecutionSummary): ExecutionSummaryReply {
  return {
    request_id: summary.id,
    status: summary.state,
    kind: summary.kind,
    command: [...summary.argv],
    image: summary.image,
    mode: summary.mode,
    runtime: summary.runtime,
    outcome: summary.outcome,
    exit_code: summary.exitCode,
    instance_id: summary.instanceId,
    labels: { ...summary.labels },
    created_at: timestamp(summary.createdAtMs),
    started_at: timestampOrNull(summary.startedAtMs),
    ended_at: timestampOrNull(summary.endedAtMs),
  }
}

export function executionReply(record: ExecutionRecord): ExecutionReply {
  return {
    request_id: record.id,
    status: record.state,
    kind: record.kind,
    command: [...record.request.argv],
    image: record.request.image,
    mode: record.request.mode,
    instance_id: record.instanceId,
    labels: { ...record.request.labels },
    created_at: timestamp(record.createdAtMs),
    started_at: timestampOrNull(record.startedAtMs),
    ended_at: timestampOrNull(record.endedAtMs),
    attempt: record.attempt,
    timeout_ms: record.request.timeoutMs,
    result: record.result === null ? null : executeReply(record.result),
  }
}

export function acceptedReply(record: ExecutionRecord): AcceptedReply {
  const self = `/api/v1/executions/${record.id}`
  return {
    request_id: record.id, status: record.state, container_id: record.instanceId ?? record.id,
    links: { self, stream: `${self}/stream`, logs: `${self}/logs`, cancel: `${self}/cancel` },
  }
}
