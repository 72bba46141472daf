/** Public types. Names and casing of the first half are the original client's. */

export enum Runtime {
  Docker = 'docker',
  Firecracker = 'firecracker',
  Auto = 'auto',
  Runc = 'runc',
  Crun = 'crun',
  GVisor = 'gvisor',
  Qemu = 'qemu',
}

export enum ExecutionMode {
  Ephemeral = 'ephemeral',
  Cached = 'cached',
  Checkpointed = 'checkpointed',
  Branched = 'branched',
  Persistent = 'persistent',
}

export interface ClientConfig {
  readonly baseUrl: string
  readonly runtime?: Runtime | `${Runtime}`
  /** Sends a cache key with each execution. Results are cached only in mode `cached`. Default true. */
  readonly cacheEnabled?: boolean
  /** Attempts in all for calls that may be repeated; 0 counts as the default. Default 3. */
  readonly maxRetries?: number
  /** Default wall time of an execution and deadline of other calls, ms. Default 30 000. */
  readonly timeout?: number
  readonly apiKey?: string
  /** For tests and proxies. Default: the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch
}

export interface ExecuteOptions {
  /** A shell line, or an argv that no shell touches. */
  readonly command: string | readonly string[]
  /** OCI reference; null: the gateway's default image. Default `alpine:latest`. */
  readonly image?: string | null
  readonly runtime?: Runtime | `${Runtime}`
  readonly mode?: ExecutionMode | `${ExecutionMode}`
  readonly envVars?: Readonly<Record<string, string>>
  readonly workingDir?: string
  /** Wall time, ms. Default: the client's `timeout`. */
  readonly timeoutMs?: number
  readonly cacheKey?: string
  readonly memoryMb?: number
  readonly cpuCores?: number
  readonly network?: 'none' | 'egress'
  readonly user?: string
  /** Standard input. */
  readonly stdin?: string | Uint8Array
  readonly snapshotId?: string
  readonly branchFrom?: string
  readonly instanceId?: string
  readonly labels?: Readonly<Record<string, string>>
  /** Ends the call, and with it the command. */
  readonly signal?: AbortSignal
  /** Same key, same body: same execution. Default: a fresh one per call, so that retries never run a command twice. */
  readonly idempotencyKey?: string
}

export interface ExecutionResult {
  readonly requestId: string
  readonly output?: string | undefined
  readonly logs?: string | undefined
  readonly error?: string | undefined
  readonly exitCode?: number | undefined
  readonly durationMs: number
  readonly cacheHit: boolean
  readonly runtimeUsed?: string | undefined
  readonly stdout: string
  readonly stderr: string
  /** `exited`, `signaled`, `oom`, `deadline`, … */
  readonly outcome?: string | undefined
  /** `warm`, `cold`, `reused`, `cached`. */
  readonly start?: string | undefined
  readonly instanceId?: string | undefined
  readonly snapshotId?: string | undefined
  /** Phase → ms. */
  readonly timeBudgetMs?: Readonly<Record<string, number>> | undefined
  /** The whole reply as the gateway sent it. */
  readonly raw: Readonly<Record<string, unknown>>
}

export interface ClientMetricsSnapshot {
  readonly totalRequests: number
  readonly cacheHits: number
  readonly totalLatencyMs: number
  readonly errors: number
  readonly cacheHitRate: number
  readonly averageLatencyMs: number
  readonly errorRate: number
}

/** Output and life of one execution as it happens. */
export type StreamEvent =
  | { readonly type: 'state'; readonly seq: number; readonly state: string }
  | { readonly type: 'stdout' | 'stderr'; readonly seq: number; readonly bytes: Uint8Array; readonly text: string }
  | { readonly type: 'end'; readonly seq: number; readonly result: ExecutionResult }

export interface PullProgress {
  readonly layer: string
  /** `downloading`, `verifying`, `unpacking`, `done`, … */
  readonly phase: string
  readonly currentBytes: number
  readonly totalBytes: number | null
}

export interface CallOptions {
  readonly signal?: AbortSignal
  readonly timeoutMs?: number
}

export type ClientEvents = {
  execution: [{ readonly result: Readonly<Record<string, unknown>>; readonly elapsedMs: number; readonly cacheHit: boolean }]
  /** `attempt` counts from 0. */
  retry: [{ readonly attempt: number; readonly error: Error }]
  error: [Error]
}
