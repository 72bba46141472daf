/**
 * Replies of the management calls, named and shaped as the gateway's OpenAPI document has them, so that these types,
 * `/docs` and curl say the same. A newer gateway may add fields.
 */

export type ExecutionState = 'queued' | 'starting' | 'running' | 'succeeded' | 'failed' | 'timed_out' | 'cancelled'

export interface ExecutionSummary {
  readonly request_id: string
  readonly status: ExecutionState
  readonly kind: 'sync' | 'async'
  /** argv */
  readonly command: readonly string[]
  readonly image: string
  readonly mode: string
  readonly instance_id: string | null
  readonly labels: Readonly<Record<string, string>>
  readonly created_at: string
  readonly started_at: string | null
  readonly ended_at: string | null
  readonly runtime: string | null
  readonly outcome: string | null
  readonly exit_code: number | null
}

export interface ExecutionPage {
  readonly executions: readonly ExecutionSummary[]
  /** Null on the last page. */
  readonly next_cursor: string | null
}

export interface Execution extends Omit<ExecutionSummary, 'runtime' | 'outcome' | 'exit_code'> {
  readonly attempt: number
  readonly timeout_ms: number
  /** The reply of `execute`; null until it ended. */
  readonly result: Readonly<Record<string, unknown>> | null
}

export type LogEntry =
  | { readonly seq: number; readonly type: 'state'; readonly state: ExecutionState; readonly at: string }
  /** `data` when the chunk is valid UTF-8 by itself, else `data_base64`. */
  | { readonly seq: number; readonly type: 'stdout' | 'stderr'; readonly data?: string; readonly data_base64?: string; readonly at: string }

export interface LogPage {
  readonly request_id: string
  readonly status: ExecutionState
  readonly entries: readonly LogEntry[]
  /** `fromSeq` of the next page. */
  readonly next_seq: number
  /** The execution has ended and nothing follows. */
  readonly complete: boolean
}

export interface Instance {
  readonly id: string
  readonly instance_id: string
  readonly name: string | null
  readonly image: string
  readonly image_digest: string
  readonly status: 'creating' | 'running' | 'pausing' | 'paused' | 'resuming' | 'stopping' | 'stopped' | 'failed'
  readonly message: string | null
  readonly created_at: string
  readonly last_used_at: string
  readonly expires_at: string | null
  readonly cpu_cores: number
  readonly memory_mb: number
  readonly runtime: string
  readonly network: 'none' | 'egress'
  readonly endpoints: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  readonly active_executions: number
  /** The execution that made it, if one did. */
  readonly created_by: string | null
}

export interface PulledImage {
  /** `oci` or `docker`. */
  readonly store: string
  readonly reference: string
  readonly digest: string
  readonly size_bytes: number
  /** A locally built image that carries the name of a registry's image. */
  readonly stand_in: boolean
}

export interface Image extends PulledImage {
  readonly created_at: string
}

export interface Prewarmed {
  readonly image: string
  readonly image_digest: string
  readonly runtime: string
  readonly wanted: number
  readonly ready: number
  /** Why `ready` is below `wanted`. */
  readonly limited_by: string | null
}

export interface Pool {
  readonly runtime: string
  readonly image: string
  readonly image_digest: string
  readonly memory_mb: number
  readonly cpu_cores: number
  readonly network: 'none' | 'egress'
  readonly ready: number
  readonly creating: number
  readonly waiting: number
  readonly floor: number
  readonly target: number
  readonly hits: number
  readonly misses: number
  readonly arrivals_per_second: number
  readonly create_ms: number | null
  readonly idle_memory_bytes: number
  readonly last_error: string | null
}

export interface RuntimeInfo {
  readonly name: string
  readonly isolation: 'process' | 'kernel' | 'emulation' | 'hardware'
  readonly usable: boolean
  readonly reason: string
  readonly hint: string | null
  readonly version: string | null
  readonly vulnerabilities: readonly { readonly id: string; readonly fixed_in: string; readonly summary: string }[]
  readonly features: Readonly<Record<string, boolean | readonly string[]>>
  readonly facts: readonly { readonly name: string; readonly ok: boolean; readonly evidence: string }[]
  readonly probed_at: string
}

export interface Key {
  readonly id: string
  readonly name: string
  readonly principal: string
  /** First characters of the key. */
  readonly prefix: string
  readonly scopes: readonly string[]
  readonly created_at: string
  readonly expires_at: string | null
  readonly revoked_at: string | null
  readonly last_used_at: string | null
}

export interface NewKey extends Key {
  /** Shown this once. */
  readonly key: string
}

export interface Health {
  readonly status: 'healthy' | 'degraded' | 'draining'
  readonly docker: boolean
  readonly firecracker: boolean
  readonly uptime_ms: number
  readonly timestamp: string
  readonly version: string
  /** Runtime → `healthy` or `unavailable`. */
  readonly components: Readonly<Record<string, string>>
  readonly issues: readonly string[]
  readonly [more: string]: unknown
}

export interface ServerMetrics {
  readonly total_requests: number
  readonly cache_hits: number
  readonly cache_hit_rate: number
  readonly docker_executions: number
  readonly vm_executions: number
  readonly total_executions: number
  readonly avg_execution_time_ms: number
  readonly active_containers: number
  readonly active_instances: number
  readonly memory_usage_mb: number
  readonly cpu_usage_percent: number
  readonly request_count: number
  readonly error_rate: number
  readonly warm_start_ratio: number
  readonly p50_latency_ms: number
  readonly p95_latency_ms: number
  readonly p99_latency_ms: number
  readonly queue_depth: number
  readonly [more: string]: unknown
}
