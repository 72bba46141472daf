/** Between the client's names and the wire's. The only file that knows both. */
import { FaaSResponseError, isRecord } from './errors.js'
import type { ExecuteOptions, ExecutionResult, InstanceExecOptions, PlacementOptions } from './types.js'

export function executeBody(options: ExecuteOptions, defaults: { readonly runtime: string; readonly timeoutMs: number; readonly cacheKey: string | undefined }): Record<string, unknown> {
  return {
    command: options.command,
    image: options.image === undefined ? 'alpine:latest' : options.image,
    timeout_ms: options.timeoutMs ?? defaults.timeoutMs,
    ...placementBody(options, defaults.runtime),
    ...commandBody(options),
    ...defined({
      mode: options.mode,
      cache_key: options.cacheKey ?? defaults.cacheKey,
      snapshot_id: options.snapshotId,
      branch_from: options.branchFrom,
      instance_id: options.instanceId,
    }),
  }
}

export function placementBody(options: PlacementOptions, runtime: string): Record<string, unknown> {
  const limits = defined({ pids: options.pids, disk_mb: options.diskMb })
  return {
    runtime: options.runtime ?? runtime,
    ...defined({
      isolation: options.isolation,
      memory_mb: options.memoryMb,
      cpu_cores: options.cpuCores,
      limits: Object.keys(limits).length === 0 ? undefined : limits,
      network: options.network,
    }),
  }
}

export function commandBody(options: InstanceExecOptions): Record<string, unknown> {
  return defined({
    env_vars: options.envVars === undefined ? undefined : Object.entries(options.envVars),
    working_dir: options.workingDir,
    user: options.user,
    stdin: typeof options.stdin === 'string' ? options.stdin : undefined,
    stdin_base64: options.stdin instanceof Uint8Array ? base64FromBytes(options.stdin) : undefined,
    labels: options.labels,
    output_bytes_max: options.outputBytesMax,
    log_bytes_max: options.logBytesMax,
  })
}

/** Without what is undefined: the original's gateway wants absent keys absent. */
export function defined(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))
}

export function toResult(raw: unknown, elapsedMs = 1, asked?: string): ExecutionResult {
  if (!isRecord(raw)) throw new FaaSResponseError('The gateway answered without an object.', { code: 'client/invalid-response', status: 200 })
  const stdout = text(raw['stdout']) ?? text(raw['output']) ?? ''
  const stderr = text(raw['stderr']) ?? text(raw['logs']) ?? ''
  return {
    requestId: text(raw['request_id']) ?? '',
    output: stdout !== '' ? stdout : text(raw['output']),
    logs: stderr !== '' ? stderr : text(raw['logs']),
    // Beside an HTTP error it is an object.
    error: text(raw['error']) ?? (isRecord(raw['error']) ? text(raw['error']['message']) : undefined),
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

/** In pieces: a call takes only so many arguments. */
const PIECE_BYTES = 8192

export function base64FromBytes(bytes: Uint8Array): string {
  let binary = ''
  for (let start = 0; start < bytes.length; start += PIECE_BYTES) binary += String.fromCharCode(...bytes.subarray(start, start + PIECE_BYTES))
  return btoa(binary)
}

export function queryString(values: Readonly<Record<string, string | number | boolean | undefined>>): string {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(values)) if (value !== undefined) query.set(key, String(value))
  const encoded = query.toString()
  return encoded === '' ? '' : `?${encoded}`
}

/** A reply that is an object. Its fields are the gateway's promise; see wire-types.ts. */
export function asReply<T extends object>(value: unknown): T {
  if (isRecord(value)) return value as unknown as T
  throw new FaaSResponseError('The gateway answered without an object.', { code: 'client/invalid-response', status: 200 })
}

export function asReplies<T>(value: unknown): readonly T[] {
  if (Array.isArray(value)) return value as readonly T[]
  throw new FaaSResponseError('The gateway answered without a list.', { code: 'client/invalid-response', status: 200 })
}

/** UUID v4. Browsers offer `randomUUID` to secure pages only. */
export function uuid(): string {
  if (typeof globalThis.crypto.randomUUID === 'function') return globalThis.crypto.randomUUID()
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(16))
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  return Array.from(bytes, (byte, index) => ([4, 6, 8, 10].includes(index) ? '-' : '') + byte.toString(16).padStart(2, '0')).join('')
}
