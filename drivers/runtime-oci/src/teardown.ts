/** Frees everything a sandbox has on the host, in one round trip to the helper; says what it met. */
import { join } from 'node:path'
import type { LogSink, SandboxId } from '@faas-platform/core'
import { type CgroupHost, type HostKit, HostKitError, type Step } from '@faas-platform/host'
import type { SandboxPaths } from './layout.js'

/** Each of: killing, removing cgroups. Far above what a loaded host takes. */
const STEP_DEADLINE_MS = 10_000
const ATTEMPTS_MAX = 3

export interface TeardownOptions {
  readonly id: SandboxId
  readonly paths: SandboxPaths
  readonly hostkit: HostKit
  readonly cgroups: CgroupHost
  /** Runs between the death of the last process and the removal of the directories. */
  readonly keep?: readonly Step[]
  readonly log: LogSink
}

/** Asks the helper to watch what a sandbox writes; `teardown` ends it. */
export function guardStep(id: SandboxId, paths: SandboxPaths, cgroups: CgroupHost, bytesMax: number): Step {
  return ['guard', id, paths.upper, bytesMax, join(cgroups.processDirectory(paths.cgroup), 'cgroup.procs'), cgroups.cpuFile(paths.cgroup)]
}

/** Ends every process and removes cgroups and directories. @throws HostKitError after several attempts. */
export async function teardown(options: TeardownOptions): Promise<{ readonly processes: number }> {
  const { paths, cgroups } = options
  const steps: Step[] = [
    ['unguard', options.id],
    ['cgroup-kill', STEP_DEADLINE_MS, cgroups.processDirectory(paths.cgroup)],
    ['cgroup-remove', STEP_DEADLINE_MS, ...cgroups.directories(paths.cgroup)],
    ...(options.keep ?? []),
    ['rmtree', paths.dir],
  ]
  for (let attempt = 1; ; attempt++) {
    try {
      const results = await options.hostkit.run(steps)
      return { processes: Number(results[1]?.text ?? 0) }
    } catch (error) {
      if (!(error instanceof HostKitError) || attempt >= ATTEMPTS_MAX) throw error
      options.log.warn({ sandbox: options.id, attempt, error: error.message }, 'a sandbox was not freed at once')
    }
  }
}
