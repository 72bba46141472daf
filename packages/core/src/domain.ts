/** Plain data of the domain. Everything here is trusted: adapters check before they build it. */
import type { ErrorCode } from './errors.js'
import type { ExecutionId, ImageDigest, InstanceId, PrincipalId, SandboxId, SnapshotId } from './ids.js'
import type { ExecutionState } from './state.js'

export const RUNTIME_NAMES = ['runc', 'crun', 'gvisor', 'docker', 'firecracker', 'qemu', 'memory'] as const
/** `memory` is the in-memory test driver; it is never part of a served configuration. */
export type RuntimeName = (typeof RUNTIME_NAMES)[number]
export type RuntimeChoice = RuntimeName | 'auto'

/** From weakest to strongest. `emulation` and `hardware` are both microVMs. */
export const ISOLATION_CLASSES = ['none', 'process', 'kernel', 'emulation', 'hardware'] as const
export type IsolationClass = (typeof ISOLATION_CLASSES)[number]

/** What each runtime's wall is made of. A Docker engine may be told to use a stronger runtime; by itself it uses runc. */
export const RUNTIME_ISOLATION = {
  runc: 'process', crun: 'process', docker: 'process', gvisor: 'kernel', qemu: 'emulation', firecracker: 'hardware', memory: 'none',
} as const satisfies Record<RuntimeName, IsolationClass>

export const EXECUTION_MODES = ['ephemeral', 'cached', 'checkpointed', 'branched', 'persistent'] as const
export type ExecutionMode = (typeof EXECUTION_MODES)[number]

export interface SandboxLimits {
  readonly memoryBytes: number
  /** Cores, may be fractional, > 0. */
  readonly cpuCores: number
  readonly pidsMax: number
  /** Bytes the sandbox may add to its file system. */
  readonly writableBytesMax: number
}

export interface NetworkPolicy {
  /** `none`: loopback only. `egress`: outbound only; host loopback, private ranges and metadata addresses are blocked. */
  readonly mode: 'none' | 'egress'
  /** CIDRs that `egress` may reach although they are blocked by default. */
  readonly allowCidrs: readonly string[]
}

/** An image as resolved: nothing downstream ever looks at the reference again. */
export interface ResolvedImage {
  readonly digest: ImageDigest
  /** The normalised reference that was asked for. */
  readonly reference: string
  readonly config: ImageConfig
  readonly sizeBytes: number
  /** Set when a local stand-in carries this name because no registry was in reach at set-up. */
  readonly standIn: boolean
}

/** The parts of an OCI image config that matter to run it. */
export interface ImageConfig {
  readonly env: Readonly<Record<string, string>>
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  readonly workingDir: string
  /** `user[:group]` as the image states it; empty = root. */
  readonly user: string
  readonly labels: Readonly<Record<string, string>>
}

export interface SandboxSpec {
  readonly id: SandboxId
  readonly image: ResolvedImage
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
  readonly hostname: string
  /** Free labels recorded on host resources where the runtime can (owner, purpose). */
  readonly labels: Readonly<Record<string, string>>
}

/** Where each millisecond went: phase name → ms, in order of first occurrence. */
export type TimeBudget = Readonly<Record<string, number>>

export interface ExecSpec {
  /** argv[0] is looked up in PATH of `env` inside the sandbox. Not empty. */
  readonly argv: readonly string[]
  /** The whole environment. */
  readonly env: Readonly<Record<string, string>>
  /** Absent: `/`. */
  readonly cwd?: string
  /** `user[:group]`, names or numbers, resolved in the sandbox. Absent: root. */
  readonly user?: string
  readonly tty?: { readonly cols: number; readonly rows: number }
  /** `none`: /dev/null. `pipe`: write with the handle. Bytes: delivered, then closed. Absent: `none`. */
  readonly stdin?: 'none' | 'pipe' | Uint8Array
  /** Go on running when the host's connection drops (instances). Absent: the process group is killed. */
  readonly keepOnDisconnect?: boolean
}

export interface ExecUsage {
  readonly userCpuMs: number
  readonly systemCpuMs: number
  readonly maxRssBytes: number
  readonly wallMs: number
}

export interface ExecExit {
  /** Null when ended by a signal. */
  readonly exitCode: number | null
  /** `SIGKILL`, …; null when it exited. */
  readonly signal: string | null
  /** True when the kernel's OOM killer ended a process of this sandbox during the exec. */
  readonly oomKilled: boolean
  readonly usage: ExecUsage
}

export interface SandboxStats {
  readonly cpuMs: number
  readonly memoryBytes: number
  readonly memoryPeakBytes: number
  readonly pids: number
  /** Bytes in the writable layer; null when the runtime can not tell. */
  readonly writableBytes: number | null
  readonly oomKills: number
}

/** Why a sandbox is no more. */
export interface SandboxExit {
  readonly reason: 'destroyed' | 'oom' | 'disk_limit' | 'lost'
  readonly message: string
}

export type SandboxAction = 'pause' | 'checkpoint' | 'retain' | 'copy' | 'tty' | 'resize-limits' | 'expose'
export type Capability = { readonly can: true } | { readonly can: false; readonly why: string }

/** How an execution ended. A guest's failure is a result, not an error. */
export const OUTCOMES = ['exited', 'signaled', 'oom', 'deadline', 'cancelled', 'disk_limit', 'output_limit', 'spawn_failed', 'error'] as const
export type Outcome = (typeof OUTCOMES)[number]

export interface ExecuteRequest {
  /** The command as argv. The wire's shell string arrives as `['/bin/sh', '-c', text]`. */
  readonly argv: readonly string[]
  /** OCI reference. */
  readonly image: string
  readonly runtime: RuntimeChoice
  /** The weakest class the caller accepts; only narrows `auto`, or refuses a named runtime. */
  readonly isolationFloor: IsolationClass
  readonly mode: ExecutionMode
  /** Wall time of the command and of getting a sandbox for it, ms. */
  readonly timeoutMs: number
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
  readonly env: Readonly<Record<string, string>>
  readonly cwd?: string
  readonly user?: string
  readonly stdin?: Uint8Array
  readonly cacheKey?: string
  readonly snapshotId?: SnapshotId
  readonly branchFrom?: string
  /** Mode `persistent`: run in this instance instead of a new one. */
  readonly instanceId?: InstanceId
  /** Bytes of each stream kept in the reply (head and tail halves). */
  readonly outputBytesMax: number
  /** Bytes of both streams kept in the full log; over it the command is ended. */
  readonly logBytesMax: number
  /** Asynchronous work only: may it run again after a crash of the gateway? */
  readonly rerunnable: boolean
  readonly labels: Readonly<Record<string, string>>
}

export interface Usage {
  readonly wallMs: number
  readonly cpuMs: number
  readonly memoryPeakBytes: number
  readonly outputBytes: number
}

export interface RuntimeDecision {
  readonly runtime: RuntimeName
  readonly isolation: IsolationClass
  /** A sentence: why this one. */
  readonly reason: string
}

export interface CapturedStream {
  /** Head, and tail after a marker line when `truncated`. */
  readonly bytes: Uint8Array
  readonly totalBytes: number
  readonly truncated: boolean
}

export interface ExecutionResult {
  readonly id: ExecutionId
  readonly principal: PrincipalId
  readonly state: ExecutionState
  readonly outcome: Outcome
  /** Guest's code; 128 + signal number when signalled; 124 deadline; null when nothing ran. */
  readonly exitCode: number | null
  readonly signal: string | null
  readonly stdout: CapturedStream
  readonly stderr: CapturedStream
  /** What to tell a caller when the outcome is not a plain exit 0. */
  readonly message: string | null
  readonly errorCode: ErrorCode | null
  readonly imageDigest: ImageDigest | null
  readonly imageStandIn: boolean
  readonly decision: RuntimeDecision | null
  /** `warm`: from the pool; `cold`: made for this request; `reused`: an existing instance. */
  readonly start: 'warm' | 'cold' | 'reused' | 'cached' | null
  readonly usage: Usage
  readonly timeBudget: TimeBudget
  readonly instanceId: InstanceId | null
  readonly createdAtMs: number
  readonly startedAtMs: number | null
  readonly endedAtMs: number
}

/** Something that happened to one execution, numbered from 0 without gaps. */
export type ExecutionEvent =
  | { readonly seq: number; readonly type: 'state'; readonly state: ExecutionState; readonly atMs: number }
  | { readonly seq: number; readonly type: 'stdout' | 'stderr'; readonly bytes: Uint8Array; readonly atMs: number }
  | { readonly seq: number; readonly type: 'end'; readonly result: ExecutionResult; readonly atMs: number }
