/**
 * A container as this host sees it, past the engine: trusted figures at the cost of a file read.
 * Only when the engine's containers are processes of this host that we may look at; `agent-delivery` finds out.
 */
import { readFile, readlink, stat } from 'node:fs/promises'
import { CgroupHost, type CgroupUsage } from '@faas-platform/host'
import { optionalText, sub, text, list, shape, type Shape } from './engine-shape.js'

export class HostView {
  private constructor(
    readonly pid: number,
    private readonly host: CgroupHost,
    private readonly group: string,
    /** Directories that hold what the guest adds: the writable layer, and volumes that the image declares. */
    readonly writableDirs: readonly string[],
  ) {}

  /** Null when the container's first process is not a process of this host. */
  static async of(inspect: Shape, pid: number): Promise<HostView | null> {
    const group = await containerGroup(pid, text(inspect, 'Id'))
    if (group === null) return null
    return new HostView(pid, cgroupHost(), group, await existing(writableDirs(inspect)))
  }

  usage(): CgroupUsage {
    return this.host.usage(this.group)
  }

  oomKills(): number {
    return this.host.oomKills(this.group)
  }
}

/** True when the process has a network of its own: not this process's, which is the host's. */
export async function hasOwnNetwork(pid: number): Promise<boolean> {
  const [theirs, ours] = await Promise.all([readlink(`/proc/${pid}/ns/net`), readlink('/proc/self/ns/net')])
  return theirs !== ours
}

let detected: CgroupHost | undefined
function cgroupHost(): CgroupHost {
  detected ??= CgroupHost.detect()
  return detected
}

/** The container's group below each hierarchy's root; null when the process is not of this container. */
async function containerGroup(pid: number, containerId: string): Promise<string | null> {
  let body: string
  try {
    body = await readFile(`/proc/${pid}/cgroup`, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES') return null
    throw error
  }
  const wanted = cgroupHost().version === 1 ? /^\d+:(?:[^:]*,)?memory(?:,[^:]*)?:(.+)$/m : /^0::(.+)$/m
  const group = wanted.exec(body)?.[1]
  return group !== undefined && group.includes(containerId) ? group : null
}

function writableDirs(inspect: Shape): readonly string[] {
  const upper = optionalText(sub(sub(inspect, 'GraphDriver'), 'Data'), 'UpperDir')
  const volumes = list(inspect, 'Mounts')
    .map((mount) => shape(mount, 'Mounts'))
    .filter((mount) => mount['Type'] === 'volume' && mount['RW'] === true)
    .map((mount) => optionalText(mount, 'Source') ?? '')
  return [...(upper === undefined ? [] : [upper]), ...volumes.filter((source) => source !== '')]
}

/** All of them, or none: a sum that lacks a part would be a lie. */
async function existing(dirs: readonly string[]): Promise<readonly string[]> {
  const found = await Promise.all(
    dirs.map((dir) =>
      stat(dir).then(
        (info) => info.isDirectory(),
        () => false, // the engine's data lies elsewhere: a machine of its own, or no right to look
      ),
    ),
  )
  return found.every(Boolean) ? dirs : []
}
