/**
 * What the engine is told to make: a `SandboxSpec` as the body of `POST /containers/create`. Pure.
 *
 * I1. Nothing that an image declares runs or weakens anything: entry point, user, working directory and health check
 *     are all overridden.
 * I2. Nothing is left to a default of the engine that an administrator can weaken without our noticing; what can not be
 *     said in the call is checked by `probe`.
 */
import { SANDBOX_CAPABILITIES, SANDBOX_OOM_SCORE_ADJ, SANDBOX_SHM_BYTES, type SandboxLimits, type SandboxSpec } from '@faas-platform/core'
import { compareVersions } from './engine-version.js'

/** Directory of the agent inside a sandbox. */
export const AGENT_DIR = '/.faas'
export const AGENT_PATH = `${AGENT_DIR}/agent`
/** A tiny in-memory directory of its own: what a guest writes there is bounded, and the socket is no part of the layer. */
export const AGENT_RUN_DIR = `${AGENT_DIR}/run`
export const AGENT_SOCKET_NAME = 'agent.sock'

export const LABEL_DATA_DIR = 'dev.faas-platform.data-dir'
export const LABEL_SANDBOX = 'dev.faas-platform.sandbox'
/** The reference that the image was asked for by. */
export const LABEL_IMAGE = 'dev.faas-platform.image'
const LABEL_FREE_PREFIX = 'dev.faas-platform.label.'

/** The engine's own list, and on cgroup v1 the directory above the hierarchies, which it leaves writable. */
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger', '/sys/fs/cgroup']

const NANO_CPUS_PER_CORE = 1_000_000_000

/** How the agent gets into a container, and how it is spoken to. Decided once per engine. */
export interface AgentDelivery {
  /** `bind`: a read-only bind of this host directory. `volume`: a read-only named volume with the agent in it. */
  readonly source: { readonly kind: 'bind'; readonly hostDir: string } | { readonly kind: 'volume'; readonly name: string }
  /** `socket`: the agent listens in the sandbox's own file system. `attach`: the agent's standard streams, through the engine. */
  readonly transport: 'socket' | 'attach'
}

export interface ContainerContext {
  readonly dataDirId: string
  readonly apiVersion: string
  /** The engine's OCI runtime: `runc`, `runsc`, … */
  readonly runtime: string
  /** Replaces the engine's own profile. JSON text in the form of Docker's or of the OCI runtime specification. */
  readonly seccompProfile: string | undefined
  readonly delivery: AgentDelivery
  /** Name of the network for `egress`; null when the sandbox has none. */
  readonly network: string | null
  /**
   * With no network: leave the engine's network code out altogether. The runtime then makes an empty network namespace
   * by itself, which halves the start time. Set only where a probe has seen that namespace.
   */
  readonly bareNetwork: boolean
}

export function containerName(dataDirId: string, sandboxId: string): string {
  return `faas-${dataDirId}-${sandboxId}`
}

export function containerBody(spec: SandboxSpec, context: ContainerContext): Readonly<Record<string, unknown>> {
  const { delivery } = context
  const attach = delivery.transport === 'attach'
  return {
    Image: spec.image.digest,
    Hostname: spec.hostname,
    Entrypoint: [AGENT_PATH, ...(attach ? ['--stdio'] : ['--listen', `${AGENT_RUN_DIR}/${AGENT_SOCKET_NAME}`])], // I1
    Cmd: [],
    User: '0:0',
    WorkingDir: '/',
    Healthcheck: { Test: ['NONE'] },
    StopSignal: 'SIGKILL', // a stopping engine would wait ten seconds for each sandbox, for nothing
    Tty: false,
    NetworkDisabled: context.bareNetwork && context.network === null,
    AttachStdin: attach,
    AttachStdout: attach,
    AttachStderr: attach,
    OpenStdin: attach,
    StdinOnce: false,
    Labels: labels(spec, context.dataDirId),
    HostConfig: {
      ...limitFields(spec.limits),
      OomScoreAdj: SANDBOX_OOM_SCORE_ADJ,
      OomKillDisable: false,
      ShmSize: SANDBOX_SHM_BYTES,
      CapDrop: ['ALL'],
      CapAdd: SANDBOX_CAPABILITIES.map((name) => name.replace(/^CAP_/, '')),
      Privileged: false,
      SecurityOpt: securityOptions(context),
      ReadonlyPaths: READONLY_PATHS,
      ReadonlyRootfs: false,
      IpcMode: 'private',
      PidMode: '',
      UTSMode: '',
      CgroupnsMode: 'private',
      NetworkMode: context.network ?? 'none',
      Init: false,
      AutoRemove: false,
      RestartPolicy: { Name: 'no' },
      LogConfig: { Type: 'none', Config: {} },
      Runtime: context.runtime,
      Mounts: [agentMount(delivery)],
      ...(attach ? {} : { Tmpfs: { [AGENT_RUN_DIR]: 'rw,noexec,nosuid,nodev,size=64k,nr_inodes=16,mode=0700' } }),
    },
  }
}

/** Also the body of `POST /containers/{id}/update`. */
export function limitFields(limits: SandboxLimits): Readonly<Record<string, unknown>> {
  return {
    Memory: limits.memoryBytes,
    MemorySwap: limits.memoryBytes, // memory and swap together: no swap
    NanoCpus: Math.round(limits.cpuCores * NANO_CPUS_PER_CORE),
    PidsLimit: limits.pidsMax,
  }
}

/** Engines before 23 know no name for their default profile, and apply it when none is named; `probe` checks that they do. */
function securityOptions({ apiVersion, seccompProfile }: ContainerContext): readonly string[] {
  const seccomp = seccompProfile ?? (compareVersions(apiVersion, '1.42') >= 0 ? 'builtin' : undefined)
  return ['no-new-privileges:true', ...(seccomp === undefined ? [] : [`seccomp=${seccomp}`])]
}

function agentMount({ source }: AgentDelivery): Readonly<Record<string, unknown>> {
  if (source.kind === 'bind') {
    return { Type: 'bind', Source: source.hostDir, Target: AGENT_DIR, ReadOnly: true, BindOptions: { Propagation: 'rprivate' } }
  }
  return { Type: 'volume', Source: source.name, Target: AGENT_DIR, ReadOnly: true, VolumeOptions: { NoCopy: true } }
}

function labels(spec: SandboxSpec, dataDirId: string): Readonly<Record<string, string>> {
  const free = Object.entries(spec.labels).map(([name, value]): [string, string] => [LABEL_FREE_PREFIX + name, value])
  return { ...Object.fromEntries(free), [LABEL_DATA_DIR]: dataDirId, [LABEL_SANDBOX]: spec.id, [LABEL_IMAGE]: spec.image.reference }
}
