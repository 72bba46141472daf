/**
 * Counts what a driver may leave on the host. Only things that carry the data directory or the driver's name
 * prefix are counted, so that other work on the same machine does not show.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'

export interface LeakCounts {
  /** Open files of this process. */
  readonly fds: number
  readonly mounts: number
  readonly cgroups: number
  /** Network namespaces that matching processes live in, and named ones. */
  readonly networkNamespaces: number
  readonly processes: number
  /** Entries of the data directory that belong to sandboxes. */
  readonly directories: number
}

export interface LeakScope {
  readonly dataDir: string
  /** What the names of all host resources of this data directory begin with. */
  readonly hostPrefix: string
}

const SANDBOX_DIRS = ['sandboxes', 'run', 'retained']
const CGROUP_DEPTH_MAX = 6

export function leakCounter(scope: LeakScope): () => LeakCounts {
  const marks = [scope.dataDir, scope.hostPrefix].filter((mark) => mark.length > 4)
  const matches = (text: string): boolean => marks.some((mark) => text.includes(mark))
  return () => {
    const processes = matchingProcesses(matches)
    return {
      fds: entries('/proc/self/fd').length,
      mounts: read('/proc/self/mountinfo').split('\n').filter(matches).length,
      cgroups: countCgroups('/sys/fs/cgroup', matches, 0),
      networkNamespaces: new Set(processes.map((pid) => link(`/proc/${pid}/ns/net`))).size + entries('/run/netns').filter(matches).length,
      processes: processes.length,
      directories: SANDBOX_DIRS.reduce((sum, name) => sum + entries(join(scope.dataDir, name)).length, 0),
    }
  }
}

/** Counts above `before`; empty when nothing leaked. File descriptors may vary by the test runner's own few. */
export function leaked(before: LeakCounts, after: LeakCounts, slack: { readonly fds: number } = { fds: 3 }): Partial<LeakCounts> {
  const over: Partial<Record<keyof LeakCounts, number>> = {}
  for (const key of Object.keys(before) as (keyof LeakCounts)[]) {
    const extra = after[key] - before[key]
    if (extra > (key === 'fds' ? slack.fds : 0)) over[key] = extra
  }
  return over
}

function matchingProcesses(matches: (text: string) => boolean): string[] {
  return entries('/proc').filter((name) => {
    if (!/^\d+$/.test(name) || Number(name) === process.pid) return false
    return matches(read(`/proc/${name}/cmdline`).replaceAll('\0', ' ')) || matches(read(`/proc/${name}/cgroup`))
  })
}

function countCgroups(dir: string, matches: (text: string) => boolean, depth: number): number {
  if (depth > CGROUP_DEPTH_MAX) return 0
  let count = 0
  for (const entry of directories(dir)) count += (matches(entry) ? 1 : 0) + countCgroups(join(dir, entry), matches, depth + 1)
  return count
}

/** What vanished while it was being looked at counts as not there. */
function gone<T>(look: () => T, otherwise: T): T {
  try {
    return look()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES' || code === 'EINVAL' || code === 'ENODEV' || code === 'ENOTDIR') return otherwise
    throw error
  }
}

const entries = (dir: string): string[] => gone(() => readdirSync(dir), [])
const directories = (dir: string): string[] => gone(() => readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map((entry) => entry.name), [])
const read = (path: string): string => gone(() => readFileSync(path, 'utf8'), '')
const link = (path: string): string => gone(() => readlinkSync(path), '')
