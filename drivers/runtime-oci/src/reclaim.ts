/** Frees what a killed process left: found by name, whatever state it was in. */
import { readdir, readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { asId, type LogSink, type ReclaimReport, type SandboxId } from '@faas-platform/core'
import type { CgroupHost, HostKit } from '@faas-platform/host'
import { sandboxPaths, type OwnerPaths } from './layout.js'
import { teardown } from './teardown.js'

export interface ReclaimOptions {
  readonly owner: OwnerPaths
  readonly retainedDir: string
  readonly cgroups: CgroupHost
  readonly hostkit: HostKit
  readonly log: LogSink
  readonly keep: ReadonlySet<SandboxId>
}

const KILL_DEADLINE_MS = 10_000
const AT_ONCE = 8

export async function reclaimAll(options: ReclaimOptions): Promise<ReclaimReport> {
  const { owner, cgroups, hostkit, keep, log } = options
  // A runtime that was started a moment before the kill would otherwise go on to make a sandbox behind our back.
  const launching = Number(await hostkit.call('cgroup-kill', KILL_DEADLINE_MS, cgroups.processDirectory(owner.launchCgroup)))
  const directories = await names(owner.sandboxesDir)
  const groups = new Set<string>()
  let cgroupDirs = 0
  for (const parent of cgroups.directories(owner.cgroup)) {
    for (const name of await subdirectories(parent)) {
      if (name === basename(owner.launchCgroup)) continue
      groups.add(name)
      if (!keep.has(asId<SandboxId>(name))) cgroupDirs++
    }
  }
  const gone = [...new Set([...directories, ...groups])].filter((name) => !keep.has(asId<SandboxId>(name)))
  const mounts = await unmountBelow(options, gone)
  let processes = launching
  for (let at = 0; at < gone.length; at += AT_ONCE) {
    const batch = gone.slice(at, at + AT_ONCE).map((name) => asId<SandboxId>(name))
    const freed = await Promise.all(batch.map((id) => teardown({ id, paths: sandboxPaths(owner, id), hostkit, cgroups, main: null, log })))
    for (const { processes: met } of freed) processes += met
  }
  const retained = (await names(options.retainedDir)).filter((name) => !keep.has(asId<SandboxId>(name)))
  for (const name of retained) await hostkit.call('rmtree', join(options.retainedDir, name))
  const report: ReclaimReport = {
    sandboxes: gone.length,
    mounts,
    cgroups: cgroupDirs,
    networkNamespaces: 0,
    processes,
    directories: directories.filter((name) => gone.includes(name)).length + retained.length,
  }
  if (gone.length + retained.length + launching > 0) log.info({ runtime: owner.runtime, ...report }, 'reclaimed what an earlier process left')
  return report
}

/** Sandboxes' mounts live in their own namespaces; whatever is found in ours was put there by somebody else. */
async function unmountBelow(options: ReclaimOptions, gone: readonly string[]): Promise<number> {
  const prefixes = gone.map((name) => `${join(options.owner.sandboxesDir, name)}/`)
  const mountPoints = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .flatMap((line) => line.split(' ')[4] ?? [])
    .filter((path) => prefixes.some((prefix) => path.startsWith(prefix)))
    .reverse()
  for (const path of mountPoints) await options.hostkit.call('umount', path)
  return mountPoints.length
}

async function names(dir: string): Promise<string[]> {
  try {
    return await readdir(dir)
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
