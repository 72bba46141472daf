/** How the three runtimes differ on the command line and in what they need. */
import type { IsolationClass, RuntimeName } from '@faas-platform/core'

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
  run(options: { readonly path: string; readonly state: string; readonly log: string; readonly bundle: string; readonly pidFile: string; readonly id: string }): string[]
  /** A command about an existing container, as `pause`. */
  act(options: { readonly path: string; readonly state: string; readonly log: string; readonly id: string; readonly verb: string }): string[]
}

const runc = (name: 'runc' | 'crun'): RuntimeKind => ({
  name,
  isolation: 'process',
  agent: 'socket',
  cgroups: 'runtime',
  kernelShared: true,
  run: ({ path, state, log, bundle, pidFile, id }) => [path, '--root', state, '--log', log, '--log-format', 'json', 'run', '--detach', '--pid-file', pidFile, '--bundle', bundle, id],
  act: ({ path, state, log, id, verb }) => [path, '--root', state, '--log', log, '--log-format', 'json', verb, id],
})

/**
 * The same flags on every command of one container.
 * `--overlay2=none`: files go to our own overlay, so that the end state outlives the sandbox.
 */
const runscFlags = (state: string, log: string): string[] => [
  '--root', state, '--log', log, '--log-format', 'json', '--platform=systrap', '--network=none', '--ignore-cgroups',
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
    run: ({ path, state, log, bundle, pidFile, id }) => [path, ...runscFlags(state, log), 'run', '--detach', '--pid-file', pidFile, '--bundle', bundle, id],
    act: ({ path, state, log, id, verb }) => [path, ...runscFlags(state, log), verb, id],
  },
}
