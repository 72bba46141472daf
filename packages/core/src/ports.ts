/**
 * Ports: what the executor asks of the outside world. Drivers implement them; nothing else does.
 * A driver is small: deadlines, retries, pooling, accounting and modes are said once, in the executor.
 */
import type {
  Capability, ExecExit, ExecSpec, ImageConfig, IsolationClass, ResolvedImage, RuntimeName, SandboxAction, SandboxExit,
  SandboxLimits, SandboxSpec, SandboxStats, TimeBudget,
} from './domain.js'
import type { ImageDigest, SandboxId } from './ids.js'

/** Time source. `nowMs` is wall time; `monotonicMs` only ever grows and has sub-millisecond resolution. */
export interface Clock {
  nowMs(): number
  monotonicMs(): number
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  delay(ms: number, signal?: AbortSignal): Promise<void>
}

export interface Ids {
  /** UUID v4 text. */
  uuid(): string
}

export interface LogSink {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void
  info(fields: Readonly<Record<string, unknown>>, message: string): void
  warn(fields: Readonly<Record<string, unknown>>, message: string): void
  error(fields: Readonly<Record<string, unknown>>, message: string): void
}

/** What a kind of runtime can do at all; `Sandbox.capability` answers for a live one. */
export interface RuntimeFeatures {
  readonly isolation: IsolationClass
  readonly pause: boolean
  readonly checkpoint: boolean
  /** The writable layer can outlive the processes. */
  readonly retain: boolean
  readonly network: readonly ('none' | 'egress')[]
  readonly tty: boolean
  /** Limits of a live sandbox can be changed. */
  readonly resizeLimits: boolean
  /** A waiting sandbox uses CPU by itself, as a user-space kernel's timers do: the pool freezes it until it is taken. */
  readonly busyWhenIdle: boolean
}

/** One fact that `probe` found, for people: `name` what was looked at, `evidence` what was seen. */
export interface ProbeFact {
  readonly name: string
  readonly ok: boolean
  readonly evidence: string
}

export interface Vulnerability {
  readonly id: string
  /** First version with the fix. */
  readonly fixedIn: string
  readonly summary: string
}

export interface ProbeReport {
  readonly usable: boolean
  /** Why it is, or is not, usable. One sentence. */
  readonly reason: string
  /** How to make it usable; absent when it is. */
  readonly hint?: string
  readonly version: string | null
  /** Known escapes that this version is open to. Untrusted work is refused when not empty. */
  readonly vulnerabilities: readonly Vulnerability[]
  readonly facts: readonly ProbeFact[]
}

export interface PullProgress {
  readonly layer: string
  readonly phase: 'waiting' | 'downloading' | 'verifying' | 'unpacking' | 'done'
  readonly currentBytes: number
  readonly totalBytes: number | null
}

export interface ImageResolveOptions {
  readonly pull: 'missing' | 'always' | 'never'
  readonly signal: AbortSignal
  readonly onProgress?: (progress: PullProgress) => void
}

export interface StoredImage {
  readonly reference: string
  readonly digest: ImageDigest
  readonly sizeBytes: number
  readonly createdAtMs: number
  readonly standIn: boolean
}

/** The images of one runtime family (own OCI store, or the Docker engine's). */
export interface ImageStore {
  /** @throws FaasError `image/*` */
  resolve(reference: string, options: ImageResolveOptions): Promise<ResolvedImage>
  list(signal: AbortSignal): Promise<readonly StoredImage[]>
  /** Removes a reference, and the content that no reference and no user holds any more. @throws `image/not-found`, `image/in-use` */
  remove(reference: string, signal: AbortSignal): Promise<void>
  /** Reads an OCI image layout directory or tar, or a `docker save` tar; gzip allowed. `reference` overrides the name found inside. */
  importArchive(path: string, options: { readonly reference?: string; readonly standIn?: boolean; readonly signal: AbortSignal; readonly onProgress?: (progress: PullProgress) => void }): Promise<readonly StoredImage[]>
  /** Makes a one-layer image of a root file system directory. */
  buildFromRootfs(rootfsPath: string, options: { readonly reference: string; readonly config: ImageConfig; readonly signal: AbortSignal }): Promise<StoredImage>
}

export interface ExecIo {
  /**
   * Receives output in order. While a returned promise is pending, no more credit goes to the guest:
   * a slow reader slows the guest and never fills the host's memory. A throw ends the exec.
   */
  onOutput(stream: 'stdout' | 'stderr', bytes: Uint8Array): void | Promise<void>
}

/** A running process inside a sandbox. */
export interface ExecHandle {
  /** As the guest numbers it. */
  readonly pid: number
  /** Resolves after the process ended and all its output was handed to `onOutput`. Rejects when the sandbox is lost. */
  wait(): Promise<ExecExit>
  /** Resolves when the guest may be sent more. Only with `stdin: 'pipe'`. */
  writeStdin(bytes: Uint8Array): Promise<void>
  closeStdin(): Promise<void>
  /** To the whole process group. `signal` as `SIGTERM`. */
  kill(signal: string): Promise<void>
  resize(cols: number, rows: number): Promise<void>
}

/** What is kept of a sandbox whose processes have ended. */
export interface RetainedState extends AsyncDisposable {
  readonly sandboxId: SandboxId
  readonly sizeBytes: number
  /** The writable layer as a tar stream, whiteouts as in OCI layers. */
  export(signal: AbortSignal): AsyncIterable<Uint8Array>
}

/** One isolated environment. Disposing it ends every process and frees every host resource; idempotent. */
export interface Sandbox extends AsyncDisposable {
  readonly id: SandboxId
  readonly runtime: RuntimeName
  readonly spec: SandboxSpec
  /** What its creation cost, by phase, ms. */
  readonly timeBudget: TimeBudget
  /** Settles when the sandbox is over, for whatever reason. Never rejects. */
  readonly exited: Promise<SandboxExit>

  /**
   * Runs a command; resolves once it has started.
   * An abort of `signal` ends its process group (SIGKILL) and rejects `wait`.
   * @throws FaasError `execution/spawn-failed`, `agent/*`, `sandbox/*`
   */
  exec(spec: ExecSpec, io: ExecIo, options: { readonly signal: AbortSignal }): Promise<ExecHandle>
  /** Extracts a tar stream under `path`, which must be absolute. Links never lead out of it. */
  copyIn(path: string, tar: AsyncIterable<Uint8Array>, options: { readonly signal: AbortSignal }): Promise<void>
  /** A tar stream of `path`, which must be absolute; a directory is packed with its name as the root. */
  copyOut(path: string, options: { readonly signal: AbortSignal }): AsyncIterable<Uint8Array>
  /** Freezes every process; memory stays on the host. */
  pause(): Promise<void>
  resume(): Promise<void>
  stats(): Promise<SandboxStats>
  /** Changes limits while it runs. @throws `runtime/unsupported` */
  updateLimits(limits: SandboxLimits): Promise<void>
  capability(action: SandboxAction): Promise<Capability>
  /** Ends every process, flushes and keeps the writable layer. The sandbox counts as destroyed afterwards. */
  retain(): Promise<RetainedState>
}

export interface ReclaimReport {
  readonly sandboxes: number
  readonly mounts: number
  readonly cgroups: number
  readonly networkNamespaces: number
  readonly processes: number
  readonly directories: number
}

export interface RuntimeDriver extends AsyncDisposable {
  readonly name: RuntimeName
  readonly features: RuntimeFeatures
  readonly images: ImageStore
  /** Is it usable on this host? Cheap enough for start-up (≤ a few seconds); does real work, not a version string. */
  probe(signal: AbortSignal): Promise<ProbeReport>
  /** Prepares shared state for an image (mounts, unpacked layers), so that `create` is fast. Idempotent. */
  prepareImage(image: ResolvedImage, signal: AbortSignal): Promise<void>
  /**
   * Makes a sandbox with its agent connected and waiting. On failure or abort nothing of it is left.
   * @throws FaasError `sandbox/create-failed`, `sandbox/create-timeout`, `network/unavailable`
   */
  create(spec: SandboxSpec, options: { readonly signal: AbortSignal }): Promise<Sandbox>
  /** Sandboxes of this data directory that exist on the host, of whatever process. */
  list(signal: AbortSignal): Promise<readonly SandboxId[]>
  /** Frees whatever a killed process left behind, except `keep`. */
  reclaim(keep: ReadonlySet<SandboxId>, signal: AbortSignal): Promise<ReclaimReport>
}
