/** Every path and name that belongs to one sandbox, in one place: creation, disposal and reclaim must agree. */
import { join } from 'node:path'
import type { RuntimeName, SandboxId } from '@faas-platform/core'

export interface OwnerPaths {
  readonly runtime: RuntimeName
  /** `<dataDir>/sandboxes/<runtime>`. */
  readonly sandboxesDir: string
  /** Parent group of all sandboxes of this driver, as `cgroupsPath` names it. */
  readonly cgroup: string
  /** Group of the runtime's own short-lived processes. */
  readonly launchCgroup: string
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
  const cgroup = `/faas-${ownerId}/${runtime}`
  return { runtime, sandboxesDir: join(dataDir, 'sandboxes', runtime), cgroup, launchCgroup: `${cgroup}/launch` }
}

export function sandboxPaths(owner: OwnerPaths, id: SandboxId): SandboxPaths {
  const dir = join(owner.sandboxesDir, id)
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

/** Ids become file and cgroup names; whatever they are elsewhere, here they must be plain. */
export function isPlainId(id: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(id) && id !== 'launch'
}
