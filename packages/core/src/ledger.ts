/**
 * Ports for what must outlive the process: the ledger (durable metadata) and the log store (full output).
 *
 * I1. What a `durable` write acknowledged survives a power cut; what any other write acknowledged survives `kill -9`.
 * I2. A stored execution's state only changes when the writer names its current incarnation.
 * I3. Every query is bounded; pages follow an opaque cursor.
 */
import type {
  ExecuteRequest, ExecutionMode, ExecutionResult, NetworkPolicy, Outcome, ResolvedImage, RuntimeName, SandboxLimits,
} from './domain.js'
import type { ExecutionId, InstanceId, KeyId, PrincipalId, SandboxId } from './ids.js'
import type { ExecutionState, InstanceState } from './state.js'

/** `sync`: the caller waits on its connection. `async`: accepted durably, run in the background. */
export type ExecutionKind = 'sync' | 'async'

/**
 * The order in which output arrived, without its bytes: enough to replay the events of a run whose
 * output is kept whole in its result.
 */
export type EventOutline = readonly (readonly [type: ExecutionState | 'stdout' | 'stderr', byteLength: number, atMs: number])[]

/** Everything kept of one execution. */
export interface ExecutionRecord {
  readonly id: ExecutionId
  readonly principal: PrincipalId
  readonly kind: ExecutionKind
  readonly state: ExecutionState
  readonly incarnation: number
  /** How often it was started; more than 1 after a crash of the gateway. */
  readonly attempt: number
  readonly request: ExecuteRequest
  readonly result: ExecutionResult | null
  /** Null when the log store has its log, or while it runs. */
  readonly outline: EventOutline | null
  readonly idempotencyKey: string | null
  /** `sha256` hex over the canonical request; null without an idempotency key. */
  readonly requestHash: string | null
  readonly instanceId: InstanceId | null
  readonly createdAtMs: number
  readonly startedAtMs: number | null
  readonly endedAtMs: number | null
}

/** One line of a listing: an execution without environment, input and output. */
export interface ExecutionSummary {
  readonly id: ExecutionId
  readonly principal: PrincipalId
  readonly kind: ExecutionKind
  readonly state: ExecutionState
  readonly argv: readonly string[]
  readonly image: string
  readonly mode: ExecutionMode
  readonly runtime: RuntimeName | null
  readonly outcome: Outcome | null
  readonly exitCode: number | null
  readonly instanceId: InstanceId | null
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMs: number
  readonly startedAtMs: number | null
  readonly endedAtMs: number | null
}

export interface ExecutionQuery {
  /** Absent: of every principal (administration). */
  readonly principal?: PrincipalId
  readonly states?: readonly ExecutionState[]
  readonly instanceId?: InstanceId
  /** Only those created before this place of the order (newest first). */
  readonly before?: { readonly createdAtMs: number; readonly id: ExecutionId }
  /** 1 to 1000. */
  readonly limit: number
}

export interface IdempotencyEntry {
  readonly principal: PrincipalId
  readonly key: string
  readonly requestHash: string
  readonly executionId: ExecutionId
  readonly expiresAtMs: number
}

export interface InstanceRecord {
  readonly id: InstanceId
  readonly principal: PrincipalId
  readonly name: string | null
  /** The execution that created it; its id works as an alias. Null when created by itself. */
  readonly createdBy: ExecutionId | null
  readonly state: InstanceState
  readonly incarnation: number
  /** Why it is `failed` or `stopped`. */
  readonly message: string | null
  readonly runtime: RuntimeName
  readonly sandboxId: SandboxId
  readonly image: ResolvedImage
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
  /** Merged into the environment of every command. */
  readonly env: Readonly<Record<string, string>>
  readonly labels: Readonly<Record<string, string>>
  readonly createdAtMs: number
  readonly lastUsedAtMs: number
  /** Stopped at this time whatever it does; null: never. */
  readonly expiresAtMs: number | null
  /** Stopped after this long without an execution; null: never. */
  readonly idleMsMax: number | null
}

export interface KeyRecord {
  readonly id: KeyId
  readonly name: string
  readonly principal: PrincipalId
  /** `sha256` hex of the key. The key has 256 random bits, so that a slow hash would add nothing. */
  readonly hash: string
  /** First characters of the key, for people to tell keys apart. */
  readonly prefix: string
  readonly scopes: readonly string[]
  readonly createdAtMs: number
  readonly expiresAtMs: number | null
  readonly revokedAtMs: number | null
  readonly lastUsedAtMs: number | null
}

/** Sums over the executions of one principal on one UTC day. */
export interface UsageTotal {
  readonly principal: PrincipalId
  /** `2026-03-02` */
  readonly day: string
  readonly executions: number
  readonly wallMs: number
  readonly cpuMs: number
  /** Σ wall seconds × limit in GiB, as the usual unit of account. */
  readonly memoryGibSeconds: number
  readonly outputBytes: number
}

export interface WriteOptions {
  /** True: resolves after the disk has it. False: after the operating system has it, with others in one transaction. */
  readonly durable: boolean
}

/** Every method rejects with `store/unavailable` when the disk is full or the store closed, `store/corrupt` when it fails its check. */
export interface Ledger extends AsyncDisposable {
  /** Inserts an execution, with its idempotency key in the same transaction. */
  insertExecution(record: ExecutionRecord, options: WriteOptions & { readonly idempotency?: IdempotencyEntry; readonly usage?: UsageTotal }): Promise<void>
  /** Replaces an execution whose stored incarnation is `fromIncarnation`; false when it is another one (I2). */
  updateExecution(record: ExecutionRecord, fromIncarnation: number, options: WriteOptions & { readonly usage?: UsageTotal }): Promise<boolean>
  getExecution(id: ExecutionId): Promise<ExecutionRecord | null>
  /** Newest first, by creation time, then id. */
  listExecutions(query: ExecutionQuery): Promise<readonly ExecutionSummary[]>
  /** Asynchronous executions without an end, oldest first: what a killed process left. */
  unfinishedExecutions(limit: number): Promise<readonly ExecutionRecord[]>
  countUnfinished(): Promise<number>
  /** Removes ended executions that ended before `endedBeforeMs`, and the oldest over `countMax`. Returns the ids. */
  pruneExecutions(limits: { readonly endedBeforeMs: number; readonly countMax: number }): Promise<readonly ExecutionId[]>

  /** An entry that has not expired at `nowMs`. */
  getIdempotency(principal: PrincipalId, key: string, nowMs: number): Promise<IdempotencyEntry | null>
  pruneIdempotency(nowMs: number): Promise<number>

  putInstance(record: InstanceRecord, options: WriteOptions): Promise<void>
  listInstances(): Promise<readonly InstanceRecord[]>
  deleteInstance(id: InstanceId): Promise<void>

  putKey(record: KeyRecord): Promise<void>
  findKey(hash: string): Promise<KeyRecord | null>
  listKeys(): Promise<readonly KeyRecord[]>
  /** False when there is no such key. Revoking twice keeps the first time. */
  revokeKey(id: KeyId, atMs: number): Promise<boolean>
  touchKey(id: KeyId, atMs: number): Promise<void>

  usageTotals(query: { readonly principal?: PrincipalId; readonly fromDay: string; readonly toDay: string }): Promise<readonly UsageTotal[]>

  /** Resolves when every write accepted so far is acknowledged. */
  flush(): Promise<void>
}

/** One numbered piece of an execution's log. */
export type LogEntry =
  | { readonly seq: number; readonly type: 'stdout' | 'stderr'; readonly bytes: Uint8Array; readonly atMs: number }
  | { readonly seq: number; readonly type: 'state'; readonly state: ExecutionState; readonly atMs: number }

export interface LogWriter {
  /** Entries follow each other in `seq`; resolves when a reader can see them. */
  append(entries: readonly LogEntry[]): Promise<void>
  close(): Promise<void>
}

export interface LogReader {
  /** The next entries, at most about 256 KiB of them; empty at the present end, from where it can go on later. */
  read(): Promise<readonly LogEntry[]>
  close(): Promise<void>
}

/** Full logs, one per execution. A half-written last entry, as a killed process leaves it, is not shown. */
export interface LogStore {
  /** Starts a log; an older one of the same execution is replaced. */
  create(id: ExecutionId): Promise<LogWriter>
  /** Null when there is none. `fromSeq` skips the entries before it. */
  open(id: ExecutionId, fromSeq: number): Promise<LogReader | null>
  remove(ids: readonly ExecutionId[]): Promise<void>
  /** Removes the oldest logs that `keep` does not name until at most `bytesMax` are left. Returns how many went. */
  prune(bytesMax: number, keep: ReadonlySet<ExecutionId>): Promise<number>
}
