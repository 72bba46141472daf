/**
 * Domain records ⇄ rows. Bytes are blobs, the rest of a request or result is JSON.
 * What comes back was written by this file, so it is read without checks beyond the column types.
 */
import {
  asId, FaasError, type CapturedStream, type EventOutline, type ExecuteRequest, type ExecutionId, type ExecutionKind, type ExecutionRecord,
  type ExecutionResult, type ExecutionState, type ExecutionSummary, type IdempotencyEntry, type InstanceId, type InstanceRecord, type KeyId,
  type KeyRecord, type PrincipalId, type UsageTotal,
} from '@faas-platform/core'

/** What the binding takes. It aborts the process on a boolean, which is why there is none here. */
export type Cell = string | number | Uint8Array | null
/** As SQLite gives it. The driver adds `_metadata` to single rows; readers here only look at columns they name. */
export type Row = Readonly<Record<string, unknown>>

export function executionCells(record: ExecutionRecord): Cell[] {
  const { stdin, ...request } = record.request
  const { result } = record
  return [
    record.id, record.principal, record.kind, record.state, record.incarnation, record.attempt, JSON.stringify(request), stdin ?? null,
    result === null ? null : JSON.stringify({ ...result, stdout: withoutBytes(result.stdout), stderr: withoutBytes(result.stderr) }),
    result?.stdout.bytes ?? null, result?.stderr.bytes ?? null, record.outline === null ? null : JSON.stringify(record.outline),
    record.idempotencyKey, record.requestHash, record.instanceId, record.createdAtMs, record.startedAtMs, record.endedAtMs,
  ]
}

export function executionOf(row: Row): ExecutionRecord {
  const stdin = bytesOrNull(row, 'stdin')
  const request = JSON.parse(text(row, 'request')) as Omit<ExecuteRequest, 'stdin'>
  const outline = textOrNull(row, 'outline')
  return {
    id: asId<ExecutionId>(text(row, 'id')),
    principal: asId<PrincipalId>(text(row, 'principal')),
    kind: text(row, 'kind') as ExecutionKind,
    state: text(row, 'state') as ExecutionState,
    incarnation: number(row, 'incarnation'),
    attempt: number(row, 'attempt'),
    request: stdin === null ? request : { ...request, stdin },
    result: resultOf(row),
    outline: outline === null ? null : (JSON.parse(outline) as EventOutline),
    idempotencyKey: textOrNull(row, 'idempotency_key'),
    requestHash: textOrNull(row, 'request_hash'),
    instanceId: idOrNull(row),
    createdAtMs: number(row, 'created_ms'),
    startedAtMs: numberOrNull(row, 'started_ms'),
    endedAtMs: numberOrNull(row, 'ended_ms'),
  }
}

/** The columns of a listing, taken out of the JSON by SQLite. */
export const SUMMARY_COLUMNS = `id, principal, kind, state, instance_id, created_ms, started_ms, ended_ms,
  json_extract(request, '$.argv') AS argv, json_extract(request, '$.image') AS image, json_extract(request, '$.mode') AS mode,
  json_extract(request, '$.labels') AS labels, json_extract(result, '$.decision.runtime') AS runtime,
  json_extract(result, '$.outcome') AS outcome, json_extract(result, '$.exitCode') AS exit_code`

export function summaryOf(row: Row): ExecutionSummary {
  return {
    id: asId<ExecutionId>(text(row, 'id')),
    principal: asId<PrincipalId>(text(row, 'principal')),
    kind: text(row, 'kind') as ExecutionKind,
    state: text(row, 'state') as ExecutionState,
    argv: JSON.parse(text(row, 'argv')) as string[],
    image: text(row, 'image'),
    mode: text(row, 'mode') as ExecutionSummary['mode'],
    runtime: textOrNull(row, 'runtime') as ExecutionSummary['runtime'],
    outcome: textOrNull(row, 'outcome') as ExecutionSummary['outcome'],
    exitCode: numberOrNull(row, 'exit_code'),
    instanceId: idOrNull(row),
    labels: JSON.parse(text(row, 'labels')) as Record<string, string>,
    createdAtMs: number(row, 'created_ms'),
    startedAtMs: numberOrNull(row, 'started_ms'),
    endedAtMs: numberOrNull(row, 'ended_ms'),
  }
}

export function idempotencyOf(row: Row): IdempotencyEntry {
  return {
    principal: asId<PrincipalId>(text(row, 'principal')), key: text(row, 'key'), requestHash: text(row, 'request_hash'),
    executionId: asId<ExecutionId>(text(row, 'execution_id')), expiresAtMs: number(row, 'expires_ms'),
  }
}

export function instanceOf(row: Row): InstanceRecord {
  return JSON.parse(text(row, 'record')) as InstanceRecord
}

export function keyCells(key: KeyRecord): Cell[] {
  return [key.id, key.name, key.principal, key.hash, key.prefix, JSON.stringify(key.scopes), key.createdAtMs, key.expiresAtMs, key.revokedAtMs, key.lastUsedAtMs]
}

export function keyOf(row: Row): KeyRecord {
  return {
    id: asId<KeyId>(text(row, 'id')), name: text(row, 'name'), principal: asId<PrincipalId>(text(row, 'principal')), hash: text(row, 'hash'),
    prefix: text(row, 'prefix'), scopes: JSON.parse(text(row, 'scopes')) as string[], createdAtMs: number(row, 'created_ms'),
    expiresAtMs: numberOrNull(row, 'expires_ms'), revokedAtMs: numberOrNull(row, 'revoked_ms'), lastUsedAtMs: numberOrNull(row, 'last_used_ms'),
  }
}

export function usageOf(row: Row): UsageTotal {
  return {
    principal: asId<PrincipalId>(text(row, 'principal')), day: text(row, 'day'), executions: number(row, 'executions'), wallMs: number(row, 'wall_ms'),
    cpuMs: number(row, 'cpu_ms'), memoryGibSeconds: number(row, 'memory_gib_seconds'), outputBytes: number(row, 'output_bytes'),
  }
}

export function text(row: Row, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw wrongType(column)
  return value
}

export function number(row: Row, column: string): number {
  const value = row[column]
  if (typeof value !== 'number') throw wrongType(column)
  return value
}

function textOrNull(row: Row, column: string): string | null {
  return row[column] === null || row[column] === undefined ? null : text(row, column)
}

function numberOrNull(row: Row, column: string): number | null {
  return row[column] === null || row[column] === undefined ? null : number(row, column)
}

function bytesOrNull(row: Row, column: string): Uint8Array | null {
  const value = row[column]
  if (value === null || value === undefined) return null
  // Blobs come back as `ArrayBuffer`.
  if (!(value instanceof ArrayBuffer)) throw wrongType(column)
  return new Uint8Array(value)
}

function idOrNull(row: Row): InstanceId | null {
  const value = textOrNull(row, 'instance_id')
  return value === null ? null : asId<InstanceId>(value)
}

function resultOf(row: Row): ExecutionResult | null {
  const json = textOrNull(row, 'result')
  if (json === null) return null
  const result = JSON.parse(json) as ExecutionResult
  return {
    ...result,
    stdout: { ...result.stdout, bytes: bytesOrNull(row, 'stdout') ?? new Uint8Array() },
    stderr: { ...result.stderr, bytes: bytesOrNull(row, 'stderr') ?? new Uint8Array() },
  }
}

function withoutBytes({ totalBytes, truncated }: CapturedStream): Omit<CapturedStream, 'bytes'> {
  return { totalBytes, truncated }
}

function wrongType(column: string): FaasError {
  return new FaasError('store/corrupt', { message: `The ledger holds an unexpected value in ${column}.` })
}
