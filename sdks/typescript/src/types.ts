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
  /** Images of `runPython` and its siblings. */
  readonly images?: CodeImages
  /** For tests and proxies. Default: the global `fetch`. */
  readonly fetch?: typeof globalThis.fetch
}

export interface CodeImages {
  /** Default `python:3.11-slim`. */
  readonly python?: string
  /** Default `node:20-slim`. */
  readonly javascript?: string
  /** Default `node:24-slim`: Node strips types by itself from 22.18 and 24 on. */
  readonly typescript?: string
  /** Default `alpine:latest`. */
  readonly bash?: string
}

/** What an execution, an instance or a warm sandbox is made of. */
export interface PlacementOptions {
  readonly runtime?: Runtime | `${Runtime}`
  /** The weakest isolation class that is acceptable. */
  readonly isolation?: 'process' | 'kernel' | 'emulation' | 'hardware'
  /** MiB. */
  readonly memoryMb?: number
  /** Fractions allowed. */
  readonly cpuCores?: number
  /** Processes and threads. */
  readonly pids?: number
  /** What may be written to the file system, MiB. */
  readonly diskMb?: number
  /** `allow`: CIDRs that are reachable although egress blocks them by default; needs the scope `network` where keys are demanded. */
  readonly network?: 'none' | 'egress' | { readonly mode: 'none' | 'egress'; readonly allow?: readonly string[] }
}

export interface ExecuteOptions extends PlacementOptions {
  /** A shell line, or an argv that no shell touches. */
  readonly command: string | readonly string[]
  /** OCI reference; null: the gateway's default image. Default `alpine:latest`. */
  readonly image?: string | null
  readonly mode?: ExecutionMode | `${ExecutionMode}`
  readonly envVars?: Readonly<Record<string, string>>
  readonly workingDir?: string
  /** Wall time, ms. Default: the client's `timeout`. */
  readonly timeoutMs?: number
  readonly cacheKey?: string
  /** `user[:group]`, names or numbers. */
  readonly user?: string
  /** Standard input; its encoded form counts against the gateway's largest body (2 MiB unless set otherwise). */
  readonly stdin?: string | Uint8Array
  readonly snapshotId?: string
  readonly branchFrom?: string
  readonly instanceId?: string
  readonly labels?: Readonly<Record<string, string>>
  /** Bytes of each stream kept in the result, head and tail. */
  readonly outputBytesMax?: number
  /** Bytes of both streams in the full log; a command that writes more is ended. */
  readonly logBytesMax?: number
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

/** How a command runs in an instance that exists. */
export type InstanceExecOptions = Pick<
  ExecuteOptions, 'envVars' | 'workingDir' | 'user' | 'stdin' | 'labels' | 'outputBytesMax' | 'logBytesMax' | 'timeoutMs' | 'signal' | 'idempotencyKey'
>

export interface CreateInstanceOptions extends PlacementOptions, CallOptions {
  readonly image: string
  readonly name?: string
  /** Part of the environment of every command. */
  readonly envVars?: Readonly<Record<string, string>>
  readonly labels?: Readonly<Record<string, string>>
  /** Stop after this long whatever it does, ms. */
  readonly ttlMs?: number
  /** Stop after this long without an execution, ms. */
  readonly idleMs?: number
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
  /** After every failed attempt of a call, the last one included. `attempt` counts from 0. */
  retry: [{ readonly attempt: number; readonly error: Error }]
  /** An `execute` that threw. Unlike Node's own emitters this one does not demand a listener. */
  error: [Error]
}
