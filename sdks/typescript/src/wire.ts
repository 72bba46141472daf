/** Between the client's names and the wire's. The only file that knows both. */
import { FaaSResponseError, isRecord } from './errors.js'
import type { ExecuteOptions, ExecutionResult } from './types.js'

export function executeBody(options: ExecuteOptions, defaults: { readonly runtime: string; readonly timeoutMs: number; readonly cacheKey: string | undefined }): Record<string, unknown> {
  const body: Record<string, unknown> = {
    command: options.command,
    image: options.image === undefined ? 'alpine:latest' : options.image,
    runtime: options.runtime ?? defaults.runtime,
    timeout_ms: options.timeoutMs ?? defaults.timeoutMs,
  }
  const optional: Record<string, unknown> = {
    mode: options.mode,
    env_vars: options.envVars === undefined ? undefined : Object.entries(options.envVars),
    working_dir: options.workingDir,
    cache_key: options.cacheKey ?? defaults.cacheKey,
    memory_mb: options.memoryMb,
    cpu_cores: options.cpuCores,
    network: options.network,
    user: options.user,
    stdin: typeof options.stdin === 'string' ? options.stdin : undefined,
    payload: options.stdin instanceof Uint8Array ? [...options.stdin] : undefined,
    snapshot_id: options.snapshotId,
    branch_from: options.branchFrom,
    instance_id: options.instanceId,
    labels: options.labels,
  }
  for (const [key, value] of Object.entries(optional)) if (value !== undefined) body[key] = value
  return body
}

export function toResult(raw: unknown, elapsedMs = 1, asked?: string): ExecutionResult {
  if (!isRecord(raw)) throw new FaaSResponseError('The gateway answered without an object.', { code: 'client/invalid-response', status: 200 })
  const stdout = text(raw['stdout']) ?? text(raw['output']) ?? ''
  const stderr = text(raw['stderr']) ?? text(raw['logs']) ?? ''
  return {
    requestId: text(raw['request_id']) ?? '',
    output: stdout !== '' ? stdout : text(raw['output']),
    logs: stderr !== '' ? stderr : text(raw['logs']),
    error: text(raw['error']),
    exitCode: number(raw['exit_code']),
    durationMs: number(raw['duration_ms']) ?? elapsedMs,
    cacheHit: raw['cache_hit'] === true,
    runtimeUsed: text(raw['runtime']) ?? asked,
    stdout,
    stderr,
    outcome: text(raw['outcome']),
    start: text(raw['start']),
    instanceId: text(raw['instance_id']),
    snapshotId: text(raw['snapshot_id']),
    timeBudgetMs: isRecord(raw['time_budget_ms']) ? (raw['time_budget_ms'] as Record<string, number>) : undefined,
    raw,
  }
}

export function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function number(value: unknown): number | undefined {
  return typeof value === 'number' ? value : undefined
}

/** POSIX single quoting: nothing inside is expanded by a shell. */
export function shellQuote(argument: string): string {
  return `'${argument.replaceAll("'", `'\\''`)}'`
}

export function bytesFromBase64(encoded: string): Uint8Array {
  return Uint8Array.from(atob(encoded), (char) => char.charCodeAt(0))
}
