/** Every path and name that belongs to one sandbox, in one place: creation, disposal and reclaim must agree. */
import { join } from 'node:path'
import { asId, type RuntimeName, type SandboxId } from '@faas-platform/core'

export interface OwnerPaths {
  readonly runtime: RuntimeName
  /** `<dataDir>/sandboxes`; shared with other drivers, so names there begin with the runtime's. */
  readonly sandboxesDir: string
  readonly retainedDir: string
  /** Parent of the groups of all drivers of this data directory. */
  readonly rootCgroup: string
  /** Parent group of all sandboxes of this driver, as `cgroupsPath` names it. */
  readonly cgroup: string
}

export interface SandboxPaths {
  readonly dir: string
  readonly bundle: string
  readonly config: string
  readonly rootfs: string
  /** Holds `upper` and `work`. */
  readonly writable: string
  readonly upper: string
  readonly work: string
  /** The sandbox's own name and resolver, as a layer above the image. */
  readonly identity: string
  readonly state: string
  readonly pidFile: string
  readonly log: string
  readonly cgroup: string
}

export function ownerPaths(dataDir: string, ownerId: string, runtime: RuntimeName): OwnerPaths {
  const rootCgroup = `/faas-${ownerId}`
  return {
    runtime,
    sandboxesDir: join(dataDir, 'sandboxes'),
    retainedDir: join(dataDir, 'retained'),
    rootCgroup,
    cgroup: `${rootCgroup}/${runtime}`,
  }
}

export function sandboxPaths(owner: OwnerPaths, id: SandboxId): SandboxPaths {
  const dir = join(owner.sandboxesDir, directoryName(owner, id))
  const bundle = join(dir, 'bundle')
  const writable = join(dir, 'fs')
  return {
    dir,
    bundle,
    config: join(bundle, 'config.json'),
    rootfs: join(bundle, 'rootfs'),
    writable,
    upper: join(writable, 'upper'),
    work: join(writable, 'work'),
    identity: join(dir, 'identity'),
    state: join(dir, 'state'),
    pidFile: join(dir, 'pid'),
    log: join(dir, 'runtime.log'),
    cgroup: `${owner.cgroup}/${id}`,
  }
}

/** The name of a sandbox's directory below `sandboxes` and `retained`. */
export function directoryName(owner: OwnerPaths, id: SandboxId): string {
  return `${owner.runtime}-${id}`
}

/** The sandbox that a directory of this name belongs to; null when it is another driver's. */
export function sandboxOfDirectory(owner: OwnerPaths, name: string): SandboxId | null {
  const prefix = `${owner.runtime}-`
  return name.startsWith(prefix) ? asId<SandboxId>(name.slice(prefix.length)) : null
}

/** Ids become file and cgroup names; whatever they are elsewhere, here they must be plain. */
export function isPlainId(id: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(id)
}
