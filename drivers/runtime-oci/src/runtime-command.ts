/** How the three runtimes differ on the command line and in what they need. */
import { type IsolationClass, MIB, type RuntimeName, type SandboxLimits } from '@faas-platform/core'

export type OciRuntimeName = Extract<RuntimeName, 'runc' | 'crun' | 'gvisor'>

export interface RuntimeKind {
  readonly name: OciRuntimeName
  readonly isolation: IsolationClass
  /** `socket`: the agent listens inside; `pipes`: it speaks on its standard streams. */
  readonly agent: 'socket' | 'pipes'
  /** Who makes the cgroups of a sandbox: the runtime inside of them, or we around it. */
  readonly cgroups: 'runtime' | 'driver'
  /** Does the runtime take a user namespace and the seccomp profile from the configuration? */
  readonly kernelShared: boolean
  /** Does it refuse hosts with cgroup v2 beside v1? Then it is started where only v1 is to be seen. */
  readonly hybridCgroups: boolean
  run(options: RunOptions): string[]
  /** What the runtime itself needs in the sandbox's cgroup, on top of the caller's limits. */
  readonly overhead: { readonly memoryBytes: number; readonly pids: number }
}

/** The limits of the cgroup that holds a sandbox of this kind. */
export function cgroupLimits({ overhead }: RuntimeKind, limits: SandboxLimits): SandboxLimits {
  return { ...limits, memoryBytes: limits.memoryBytes + overhead.memoryBytes, pidsMax: limits.pidsMax + overhead.pids }
}

export interface RunOptions {
  readonly path: string
  readonly state: string
  readonly log: string
  readonly bundle: string
  readonly pidFile: string
  readonly id: string
  readonly network: 'none' | 'egress'
}

const runc = (name: 'runc' | 'crun'): RuntimeKind => ({
  name,
  isolation: 'process',
  agent: 'socket',
  cgroups: 'runtime',
  kernelShared: true,
  overhead: { memoryBytes: 0, pids: 0 },
  hybridCgroups: name === 'runc',
  run: ({ path, state, log, bundle, pidFile, id }) => [path, '--root', state, '--log', log, '--log-format', 'json', 'run', '--detach', '--pid-file', pidFile, '--bundle', bundle, id],
})

/**
 * The same flags on every command of one container.
 * `--overlay2=none`: files go to our own overlay, so that the end state outlives the sandbox.
 */
const runscFlags = ({ state, log, network }: RunOptions): string[] => [
  '--root', state, '--log', log, '--log-format', 'json', '--platform=systrap', network === 'none' ? '--network=none' : '--network=sandbox', '--ignore-cgroups',
  '--overlay2=none', '--host-uds=none', '--file-access=exclusive',
]

export const RUNTIME_KINDS: Readonly<Record<OciRuntimeName, RuntimeKind>> = {
  runc: runc('runc'),
  crun: runc('crun'),
  gvisor: {
    name: 'gvisor',
    isolation: 'kernel',
    agent: 'pipes',
    cgroups: 'driver',
    kernelShared: false,
    // The sentry and gofer: about 13 MiB and 20 threads when idle; with less than this they do not start.
    overhead: { memoryBytes: 24 * MIB, pids: 64 },
    hybridCgroups: true,
    run: (options) => [options.path, ...runscFlags(options), 'run', '--detach', '--pid-file', options.pidFile, '--bundle', options.bundle, options.id],
    },
}
