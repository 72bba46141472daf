/** Execution results on the wire: the original's eight keys, always, and everything that it left out. */
import { Buffer, isUtf8 } from 'node:buffer'
import type { CapturedStream, ExecutionResult } from '@faas-platform/core'
import { EXECUTION_STATES, FaasError, ISOLATION_CLASSES, OUTCOMES, RUNTIME_NAMES } from '@faas-platform/core'
import type { Static } from 'typebox'
import Type from 'typebox'
import type { ErrorBody } from './error-body.js'
import { ErrorBody as ErrorSchema, errorBody } from './error-body.js'
import { nullable, oneOf, Timestamp, timestamp, timestampOrNull } from './schema-parts.js'

export const ExecutionStateName = oneOf(Object.keys(EXECUTION_STATES) as (keyof typeof EXECUTION_STATES)[])

const resultFields = {
  request_id: Type.String(),
  exit_code: Type.Integer({ description: "The guest's; 128 + signal number when signalled; 124 at the deadline; -1 when nothing ran." }),
  stdout: Type.String({ description: 'As UTF-8; head and tail when `stdout_truncated`.' }),
  stderr: Type.String(),
  duration_ms: Type.Integer({ minimum: 1, description: 'From acceptance to the end, rounded up.' }),
  output: nullable(Type.String(), 'Same as `stdout`.'),
  logs: nullable(Type.String(), 'Same as `stderr`.'),
}

const additionFields = {
  status: ExecutionStateName,
  outcome: oneOf(OUTCOMES),
  error_code: nullable(Type.String()),
  signal: nullable(Type.String(), '`SIGKILL`, … when a signal ended it.'),
  runtime: nullable(oneOf(RUNTIME_NAMES)),
  runtime_reason: nullable(Type.String(), 'Why this runtime.'),
  isolation: nullable(oneOf(ISOLATION_CLASSES)),
  start: nullable(oneOf(['warm', 'cold', 'reused', 'cached'])),
  cache_hit: Type.Boolean(),
  image_digest: nullable(Type.String()),
  image_stand_in: Type.Boolean({ description: 'A locally built image answered to the name.' }),
  warnings: Type.Array(Type.String()),
  usage: Type.Object({
    wall_ms: Type.Number(), cpu_ms: Type.Number(), memory_peak_bytes: Type.Number(), output_bytes: Type.Number(),
  }),
  time_budget_ms: Type.Record(Type.String(), Type.Number(), { description: 'Where each millisecond went.' }),
  stdout_bytes: Type.Integer({ description: 'Before truncation.' }),
  stderr_bytes: Type.Integer(),
  stdout_truncated: Type.Boolean(),
  stderr_truncated: Type.Boolean(),
  stdout_base64: Type.Optional(Type.String({ description: 'The exact bytes, when they are not valid UTF-8.' })),
  stderr_base64: Type.Optional(Type.String()),
  snapshot_id: nullable(Type.String()),
  instance_id: nullable(Type.String()),
  container_id: Type.String({ description: 'What the stream and snapshot routes take: the instance, or the execution itself.' }),
  created_at: Timestamp,
  started_at: nullable(Timestamp),
  ended_at: Timestamp,
}

export const ExecuteReply = Type.Object(
  { ...resultFields, error: nullable(Type.String(), 'Null after a plain exit 0.'), ...additionFields },
  { title: 'ExecuteResponse' },
)
export type ExecuteReply = Static<typeof ExecuteReply>

/** A failed execution keeps everything that was captured beside its error. */
export const FailedExecutionReply = Type.Object(
  { ...resultFields, ...additionFields, error: ErrorSchema.properties.error },
  { title: 'FailedExecution' },
)
export type FailedExecutionReply = Omit<ExecuteReply, 'error'> & ErrorBody

const STAND_IN_WARNING = 'A locally built stand-in image answered to this name; pull the image to run the real one.'

export function executeReply(result: ExecutionResult): ExecuteReply {
  const stdout = textOf(result.stdout)
  const stderr = textOf(result.stderr)
  return {
    request_id: result.id,
    exit_code: result.exitCode ?? -1,
    stdout,
    stderr,
    duration_ms: Math.max(1, Math.ceil(result.endedAtMs - result.createdAtMs)),
    output: stdout,
    logs: stderr,
    error: errorText(result),
    status: result.state,
    outcome: result.outcome,
    error_code: result.errorCode,
    signal: result.signal,
    runtime: result.decision?.runtime ?? null,
    runtime_reason: result.decision?.reason ?? null,
    isolation: result.decision?.isolation ?? null,
    start: result.start,
    cache_hit: result.start === 'cached',
    image_digest: result.imageDigest,
    image_stand_in: result.imageStandIn,
    warnings: result.imageStandIn ? [STAND_IN_WARNING] : [],
    usage: {
      wall_ms: result.usage.wallMs, cpu_ms: result.usage.cpuMs,
      memory_peak_bytes: result.usage.memoryPeakBytes, output_bytes: result.usage.outputBytes,
    },
    time_budget_ms: result.timeBudget,
    stdout_bytes: result.stdout.totalBytes,
    stderr_bytes: result.stderr.totalBytes,
    stdout_truncated: result.stdout.truncated,
    stderr_truncated: result.stderr.truncated,
    ...exactBytes('stdout_base64', result.stdout),
    ...exactBytes('stderr_base64', result.stderr),
    snapshot_id: null,
    instance_id: result.instanceId,
    container_id: result.instanceId ?? result.id,
    created_at: timestamp(result.createdAtMs),
    started_at: timestampOrNull(result.startedAtMs),
    ended_at: timestamp(result.endedAtMs),
  }
}

/**
 * The error that a result stands for, or null when the result is an ordinary answer.
 * A guest that fails, can not be started (126, 127, as a shell has it), runs out of memory, fills its disk
 * or floods its output is a result (200); a deadline, a cancellation and a failure of the platform are errors.
 */
export function failureOf(result: ExecutionResult): FaasError | null {
  const code = {
    exited: null, signaled: null, oom: null, disk_limit: null, output_limit: null, spawn_failed: null,
    deadline: 'execution/deadline', cancelled: 'execution/cancelled', error: result.errorCode ?? 'internal/bug',
  } as const satisfies Record<ExecutionResult['outcome'], string | null>
  const failure = code[result.outcome]
  if (failure === null) return null
  return new FaasError(failure, {
    message: result.message ?? 'The execution failed.',
    hint: HINTS[failure],
    details: {
      outcome: result.outcome,
      exit_code: result.exitCode,
      stdout: textOf(result.stdout),
      stderr: textOf(result.stderr),
      duration_ms: Math.max(1, Math.ceil(result.endedAtMs - result.createdAtMs)),
    },
  })
}

const HINTS: Readonly<Partial<Record<string, string>>> = {
  'execution/deadline': 'Raise timeout_ms, or send async: true and follow the execution.',
}

export function failedExecutionReply(result: ExecutionResult, failure: FaasError): FailedExecutionReply {
  return { ...executeReply(result), ...errorBody(failure, result.id) }
}

export function textOf(stream: CapturedStream): string {
  return asBuffer(stream.bytes).toString('utf8')
}

function exactBytes<K extends string>(key: K, stream: CapturedStream): Partial<Record<K, string>> {
  if (isUtf8(stream.bytes)) return {}
  return { [key]: asBuffer(stream.bytes).toString('base64') } as Partial<Record<K, string>>
}

function errorText(result: ExecutionResult): string | null {
  if (result.outcome === 'exited') return result.exitCode === 0 ? null : `Process exited with code ${result.exitCode ?? -1}`
  return result.message ?? `Process ended: ${result.outcome}`
}

/** A view, not a copy. */
function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
