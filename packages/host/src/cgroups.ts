/**
 * Where a cgroup's files are, on v2, on v1 and on hybrid hosts, and what they say.
 *
 * A group is named by its path from the root, as OCI's `cgroupsPath`: `/faas-1a2b3c4d/runc/<sandbox>`.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

export interface CgroupUsage {
  readonly cpuMs: number
  readonly memoryBytes: number
  readonly memoryPeakBytes: number
  readonly pids: number
  readonly oomKills: number
}

export interface CgroupLimits {
  readonly memoryBytes: number
  readonly cpuCores: number
  readonly pidsMax: number
}

export const CPU_PERIOD_US = 100_000

type Writes = readonly (readonly [file: string, value: string])[]

export abstract class CgroupHost {
  /** For people: what this host has. */
  abstract readonly description: string
  abstract readonly version: 1 | 2
  /** The mount of v2 beside v1, if there is one: not every runtime copes with both. */
  abstract readonly unifiedBeside: string | null
  /** Can memory and swap be limited together? Otherwise a guest may go on in the host's swap. */
  abstract readonly swapLimited: boolean
  /** Every directory that a runtime makes for one group. */
  abstract directories(group: string): readonly string[]
  /** Directories that are enough to limit, measure and freeze processes, for groups that we make ourselves. */
  abstract ownDirectories(group: string): readonly string[]
  /** The directory in the same hierarchy as `processDirectory` that this process is in. */
  abstract ownProcessDirectory(): string
  /** The directory that holds all processes of a group and can be killed or frozen as a whole. */
  abstract processDirectory(group: string): string
  abstract limits(group: string, limits: CgroupLimits): Writes
  /** What lets groups directly below this one have limits. The root is the empty path. */
  abstract delegate(group: string): Writes
  abstract freeze(group: string, frozen: boolean): readonly [file: string, value: string]
  abstract isFrozen(group: string): Promise<boolean>
  /** Reads of kernel memory, a few microseconds each: a thread pool would cost more than it saves. Throws when the group is gone. */
  abstract usage(group: string): CgroupUsage
  /** A file that says something else whenever the group used CPU. */
  abstract cpuFile(group: string): string
  /** Cheap and synchronous: asked around every command. 0 when the group is gone. */
  abstract oomKills(group: string): number

  static detect(mountInfo: string = readFileSync('/proc/self/mountinfo', 'utf8')): CgroupHost {
    const v1 = new Map<string, string>()
    let unified: string | undefined
    for (const line of mountInfo.split('\n')) {
      const [left, right] = line.split(' - ')
      const mountPoint = left?.split(' ')[4]
      const [kind, , options] = right?.split(' ') ?? []
      if (mountPoint === undefined || !mountPoint.startsWith('/sys/fs/cgroup')) continue
      if (kind === 'cgroup2') unified ??= mountPoint
      if (kind === 'cgroup') {
        for (const option of (options ?? '').split(',')) {
          if (V1_CONTROLLERS.has(option)) v1.set(option, mountPoint)
          if (option === 'name=systemd') v1.set('systemd', mountPoint)
        }
      }
    }
    if (v1.has('memory')) return new CgroupV1(v1, unified)
    return new CgroupV2(unified ?? '/sys/fs/cgroup')
  }
}

const V1_CONTROLLERS = new Set([
  'cpu', 'cpuacct', 'cpuset', 'memory', 'devices', 'freezer', 'blkio', 'pids', 'net_cls', 'net_prio', 'perf_event', 'hugetlb', 'rdma', 'misc',
])

class CgroupV1 extends CgroupHost {
  readonly version = 1
  readonly description: string
  readonly unifiedBeside: string | null
  readonly swapLimited: boolean
  readonly #mounts: ReadonlyMap<string, string>
  readonly #unified: string | undefined

  constructor(mounts: ReadonlyMap<string, string>, unified: string | undefined) {
    super()
    this.#mounts = mounts
    this.#unified = unified
    this.unifiedBeside = unified ?? null
    this.swapLimited = existsSync(join(mounts.get('memory') ?? '', 'memory.memsw.limit_in_bytes'))
    this.description = `cgroup v1 (${[...mounts.keys()].join(', ')})${unified === undefined ? '' : ' with a unified hierarchy beside it'}`
  }

  #file(controller: string, group: string, file: string): string {
    return join(this.#mounts.get(controller) ?? `/sys/fs/cgroup/${controller}`, group, file)
  }

  directories(group: string): readonly string[] {
    const roots = new Set(this.#mounts.values())
    if (this.#unified !== undefined) roots.add(this.#unified)
    return [...roots].map((root) => join(root, group))
  }

  ownDirectories(group: string): readonly string[] {
    const roots = new Set(['memory', 'cpu', 'cpuacct', 'pids', 'freezer'].map((name) => this.#mounts.get(name)))
    return [...roots].flatMap((root) => (root === undefined ? [] : [join(root, group)]))
  }

  processDirectory(group: string): string {
    return this.#file('freezer', group, '')
  }

  ownProcessDirectory(): string {
    return this.processDirectory(groupOfSelf((controllers) => controllers.split(',').includes('freezer')))
  }

  limits(group: string, limits: CgroupLimits): Writes {
    const swap = this.#file('memory', group, 'memory.memsw.limit_in_bytes')
    return [
      // The sum of both may never be below the first, whichever way the limit moves.
      ...(this.swapLimited ? [[swap, '-1'] as const] : []),
      [this.#file('memory', group, 'memory.limit_in_bytes'), String(limits.memoryBytes)],
      ...(this.swapLimited ? [[swap, String(limits.memoryBytes)] as const] : []),
      [this.#file('cpu', group, 'cpu.cfs_period_us'), String(CPU_PERIOD_US)],
      [this.#file('cpu', group, 'cpu.cfs_quota_us'), String(Math.max(1000, Math.round(limits.cpuCores * CPU_PERIOD_US)))],
      [this.#file('pids', group, 'pids.max'), String(limits.pidsMax)],
    ]
  }

  delegate(): Writes {
    return []
  }

  freeze(group: string, frozen: boolean): readonly [string, string] {
    return [this.#file('freezer', group, 'freezer.state'), frozen ? 'FROZEN' : 'THAWED']
  }

  async isFrozen(group: string): Promise<boolean> {
    return (await readFile(this.#file('freezer', group, 'freezer.state'), 'utf8')).trim() === 'FROZEN'
  }

  usage(group: string): CgroupUsage {
    const read = (controller: string, file: string): number => Number(readFileSync(this.#file(controller, group, file), 'utf8'))
    return {
      cpuMs: read('cpuacct', 'cpuacct.usage') / 1e6,
      memoryBytes: read('memory', 'memory.usage_in_bytes'),
      memoryPeakBytes: read('memory', 'memory.max_usage_in_bytes'),
      pids: read('pids', 'pids.current'),
      oomKills: this.oomKills(group),
    }
  }

  cpuFile(group: string): string {
    return this.#file('cpuacct', group, 'cpuacct.usage')
  }

  oomKills(group: string): number {
    return counter(this.#file('memory', group, 'memory.oom_control'), 'oom_kill')
  }
}

class CgroupV2 extends CgroupHost {
  readonly version = 2
  readonly unifiedBeside = null
  readonly swapLimited: boolean
  readonly description = 'cgroup v2'
  readonly #root: string

  constructor(root: string) {
    super()
    this.#root = root
    // The root group has no limits of its own; any other has the file when the kernel counts swap.
    this.swapLimited = existsSync(root) && readdirSync(root, { withFileTypes: true }).some((entry) => entry.isDirectory() && existsSync(join(root, entry.name, 'memory.swap.max')))
  }

  directories(group: string): readonly string[] {
    return [join(this.#root, group)]
  }

  ownDirectories(group: string): readonly string[] {
    return this.directories(group)
  }

  processDirectory(group: string): string {
    return join(this.#root, group)
  }

  ownProcessDirectory(): string {
    return this.processDirectory(groupOfSelf((controllers) => controllers === ''))
  }

  limits(group: string, limits: CgroupLimits): Writes {
    const at = (file: string): string => join(this.#root, group, file)
    return [
      [at('memory.max'), String(limits.memoryBytes)],
      ...(this.swapLimited ? [[at('memory.swap.max'), '0'] as const] : []),
      [at('cpu.max'), `${Math.max(1000, Math.round(limits.cpuCores * CPU_PERIOD_US))} ${CPU_PERIOD_US}`],
      [at('pids.max'), String(limits.pidsMax)],
    ]
  }

  delegate(group: string): Writes {
    return [[join(this.#root, group, 'cgroup.subtree_control'), '+cpu +memory +pids']]
  }

  freeze(group: string, frozen: boolean): readonly [string, string] {
    return [join(this.#root, group, 'cgroup.freeze'), frozen ? '1' : '0']
  }

  async isFrozen(group: string): Promise<boolean> {
    return /^frozen 1$/m.test(await readFile(join(this.#root, group, 'cgroup.events'), 'utf8'))
  }

  usage(group: string): CgroupUsage {
    const at = (file: string): string => join(this.#root, group, file)
    const read = (file: string): number => Number(readFileSync(at(file), 'utf8'))
    return {
      cpuMs: counter(at('cpu.stat'), 'usage_usec') / 1000,
      memoryBytes: read('memory.current'),
      memoryPeakBytes: read('memory.peak'),
      pids: read('pids.current'),
      oomKills: this.oomKills(group),
    }
  }

  cpuFile(group: string): string {
    return join(this.#root, group, 'cpu.stat')
  }

  oomKills(group: string): number {
    return counter(join(this.#root, group, 'memory.events'), 'oom_kill')
  }
}

function groupOfSelf(matches: (controllers: string) => boolean): string {
  for (const line of readFileSync('/proc/self/cgroup', 'utf8').split('\n')) {
    const [, controllers, ...path] = line.split(':')
    if (controllers !== undefined && matches(controllers)) return path.join(':')
  }
  return '/'
}

/** A `name value` line of a control file; 0 when the group is gone. */
function counter(path: string, name: string): number {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || (error as NodeJS.ErrnoException).code === 'ENODEV') return 0
    throw error
  }
  return Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(text)?.[1] ?? 0)
}
