/** What the executor is given and what it answers, beside the domain types of core. */
import type {
  Clock, ExecuteRequest, ExecutionEvent, ExecutionId, ExecutionKind, ExecutionRecord, ExecutionState, ExecutionSummary, Ids,
  ImageDigest, InstanceId, InstanceState, IsolationClass, Ledger, LogSink, LogStore, NetworkPolicy, PrincipalId, ProbeReport,
  PullProgress, ReclaimReport, RetainedState, RuntimeChoice, RuntimeDriver, RuntimeFeatures, RuntimeName, SandboxLimits,
} from '@faas-platform/core'
import type { ExecutorConfig } from './config.js'

export interface ExecutorOptions {
  /** In no particular order; `config.runtimePreference` has the order of `auto`. One per runtime name. */
  readonly drivers: readonly RuntimeDriver[]
  readonly ledger: Ledger
  readonly logStore: LogStore
  readonly clock: Clock
  readonly ids: Ids
  readonly log: LogSink
  readonly config: ExecutorConfig
}

export interface RunContext {
  readonly principal: PrincipalId
  /** The caller went away: ends the command, unless another caller joined it by idempotency key. */
  readonly signal: AbortSignal
  /** Becomes the execution's id; absent: a new one. A caller that joined gets the id of the first. */
  readonly id?: ExecutionId
  readonly idempotencyKey?: string
  /** Every event in order, as it happens. A pending promise slows the guest; a throw is logged and ends the calls. */
  readonly onEvent?: (event: ExecutionEvent) => void | Promise<void>
  readonly onPullProgress?: (progress: PullProgress) => void
}

export type SubmitContext = Omit<RunContext, 'onEvent' | 'signal' | 'onPullProgress'>

export interface StartReport {
  readonly runtimes: readonly RuntimeStatus[]
  readonly reclaimed: Readonly<Partial<Record<RuntimeName, ReclaimReport>>>
  /** Asynchronous work of the last process: run (again), or reported as interrupted. */
  readonly requeued: number
  readonly interrupted: number
  /** Instances whose sandbox ended with the last process. */
  readonly instancesLost: number
}

export interface DrainReport {
  /** Ended by the drain because they were not done at the deadline. */
  readonly cancelled: number
  /** Asynchronous work left in the ledger for the next process. */
  readonly handedBack: number
  /** Sandboxes whose disposal failed; their hosts' start-up reclaims them. */
  readonly leftBehind: number
}

export interface RuntimeStatus {
  readonly name: RuntimeName
  readonly isolation: IsolationClass
  readonly features: RuntimeFeatures
  readonly probe: ProbeReport
  readonly probedAtMs: number
}

/** A record, or the same shape of an execution that still runs. */
export type ExecutionView = ExecutionRecord

export interface ListQuery {
  readonly states?: readonly ExecutionState[]
  readonly instanceId?: InstanceId
  /** As the last page gave it. */
  readonly cursor?: string
  /** 1 to 1000. Default 50. */
  readonly limit?: number
}

export interface ListPage {
  readonly executions: readonly ExecutionSummary[]
  /** Null on the last page. */
  readonly nextCursor: string | null
}

export interface PrewarmSpec {
  readonly image: string
  readonly runtime: RuntimeChoice
  readonly isolationFloor: IsolationClass
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
}

export interface PrewarmReport {
  readonly runtime: RuntimeName
  readonly imageDigest: ImageDigest
  readonly wanted: number
  readonly ready: number
  /** Why `ready` is below `wanted`; null when it is not. */
  readonly limitedBy: string | null
}

/** One line of the warm pool: sandboxes of one runtime, image, limits and network. */
export interface PoolReport {
  readonly runtime: RuntimeName
  readonly image: string
  readonly imageDigest: ImageDigest
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
  readonly ready: number
  readonly creating: number
  readonly waiting: number
  readonly floor: number
  readonly target: number
  readonly hits: number
  readonly misses: number
  readonly arrivalsPerSecond: number
  readonly createMs: number | null
  /** Memory of one idle sandbox; an estimate until one was measured. */
  readonly idleMemoryBytes: number
  readonly lastError: string | null
}

/** The end state of a finished execution. */
export interface RetainedExecution {
  readonly executionId: ExecutionId
  readonly principal: PrincipalId
  readonly runtime: RuntimeName
  readonly imageReference: string
  readonly imageDigest: ImageDigest
  readonly limits: SandboxLimits
  /** Null: the command wrote nothing, so the image itself is its end state. */
  readonly state: RetainedState | null
  readonly expiresAtMs: number
}

export interface CreateInstanceRequest {
  readonly name: string | null
  readonly image: string
  readonly runtime: RuntimeChoice
  readonly isolationFloor: IsolationClass
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
  readonly env: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  /** Absent: the configured default. Null: never. */
  readonly ttlMs?: number | null
  readonly idleMsMax?: number | null
}

export interface InstanceView {
  readonly id: InstanceId
  readonly name: string | null
  readonly principal: PrincipalId
  readonly createdBy: ExecutionId | null
  readonly state: InstanceState
  readonly message: string | null
  readonly runtime: RuntimeName
  readonly image: string
  readonly imageDigest: ImageDigest
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMs: number
  readonly lastUsedAtMs: number
  readonly expiresAtMs: number | null
  readonly idleMsMax: number | null
  /** Executions that run in it now. */
  readonly active: number
}

/** What one execution asks, and who asks it: the unit that modes and accounting work on. */
export interface AcceptedWork {
  readonly id: ExecutionId
  readonly kind: ExecutionKind
  readonly principal: PrincipalId
  readonly request: ExecuteRequest
}
