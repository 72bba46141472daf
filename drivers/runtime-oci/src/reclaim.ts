/** Frees what a killed process left: found by name, whatever state it was in. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { asId, type LogSink, type ReclaimReport, type SandboxId } from '@faas-platform/core'
import { LAUNCH_PREFIX, type CgroupHost, type EgressNetworks, type HostKit } from '@faas-platform/host'
import { directoryName, sandboxOfDirectory, sandboxPaths, type OwnerPaths } from './layout.js'
import { teardown } from './teardown.js'

export interface ReclaimOptions {
  readonly owner: OwnerPaths
  readonly cgroups: CgroupHost
  readonly hostkit: HostKit
  readonly log: LogSink
  readonly keep: ReadonlySet<SandboxId>
  /** Whether sandboxes of this process need the groups that all share. */
  readonly inUse: boolean
  readonly egress?: EgressNetworks
}

const KILL_DEADLINE_MS = 10_000
const AT_ONCE = 8

export async function reclaimAll(options: ReclaimOptions): Promise<ReclaimReport> {
  const { owner, cgroups, hostkit, keep, log } = options
  // A runtime that was started a moment before the kill would otherwise go on to make a sandbox behind our back.
  const launching = await endLaunches(options)
  const spared = (id: SandboxId): boolean => keep.has(id)
  const directories = (await sandboxesIn(owner.sandboxesDir, owner)).filter((id) => !spared(id))
  const groups = new Set<SandboxId>()
  let cgroupDirs = 0
  for (const parent of cgroups.directories(owner.cgroup)) {
    for (const name of await subdirectories(parent)) {
      const id = asId<SandboxId>(name)
      if (spared(id)) continue
      groups.add(id)
      cgroupDirs++
    }
  }
  const gone = [...new Set([...directories, ...groups])]
  const mounts = await unmountBelow(options, gone)
  let processes = launching
  for (let at = 0; at < gone.length; at += AT_ONCE) {
    const freed = await Promise.all(gone.slice(at, at + AT_ONCE).map((id) => teardown({ id, paths: sandboxPaths(owner, id), hostkit, cgroups, log })))
    for (const { processes: met } of freed) processes += met
  }
  const retained = (await sandboxesIn(owner.retainedDir, owner)).filter((id) => !spared(id))
  for (const id of retained) await hostkit.call('rmtree', join(owner.retainedDir, directoryName(owner, id)))
  const networks = (await options.egress?.reclaim()) ?? 0
  if (!options.inUse) await removeSharedGroups(options)
  const report: ReclaimReport = {
    sandboxes: gone.length,
    mounts,
    cgroups: cgroupDirs,
    networkNamespaces: networks,
    processes,
    directories: directories.length + retained.length,
  }
  if (gone.length + retained.length + launching + networks > 0) log.info({ runtime: owner.runtime, ...report }, 'reclaimed what an earlier process left')
  return report
}

/** Ends what older helpers had started and removes their groups. Ours is left alone. */
async function endLaunches({ owner, cgroups, hostkit }: ReclaimOptions): Promise<number> {
  const parent = cgroups.processDirectory(owner.rootCgroup)
  const dirs = (await subdirectories(parent)).filter((name) => name.startsWith(LAUNCH_PREFIX)).map((name) => join(parent, name)).filter((dir) => dir !== hostkit.group)
  if (dirs.length === 0) return 0
  const [killed] = await hostkit.run([['cgroup-kill', KILL_DEADLINE_MS, ...dirs], ['cgroup-remove', KILL_DEADLINE_MS, ...dirs]])
  return Number(killed?.text ?? 0)
}

/** Groups without sandboxes: those of this driver, then the one above when no other driver uses it. */
export async function removeSharedGroups(options: Pick<ReclaimOptions, 'owner' | 'cgroups' | 'hostkit'>): Promise<void> {
  const { owner, cgroups, hostkit } = options
  const dirs = [owner.cgroup, owner.rootCgroup].flatMap((group) => cgroups.directories(group))
  await hostkit.run(dirs.map((dir) => ['rmdir', dir] as const))
}

/** Sandboxes' mounts live in their own namespaces; whatever is found in ours was put there by somebody else. */
async function unmountBelow(options: ReclaimOptions, gone: readonly SandboxId[]): Promise<number> {
  const prefixes = gone.map((id) => `${sandboxPaths(options.owner, id).dir}/`)
  const mountPoints = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .filter((path) => prefixes.some((prefix) => path.startsWith(prefix)))
    .reverse()
  for (const path of mountPoints) await options.hostkit.call('umount', path)
  return mountPoints.length
}

/** Sandboxes of this driver that have an entry in a directory. */
export async function sandboxesIn(dir: string, owner: OwnerPaths): Promise<SandboxId[]> {
  try {
    return (await readdir(dir)).flatMap((name) => sandboxOfDirectory(owner, name) ?? [])
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

async function subdirectories(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir, { withFileTypes: true })).filter((entry) => entry.isDirectory()).map((entry) => entry.name)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
