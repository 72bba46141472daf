/** What every contract test works with: a driver under test, its image, and short ways to make sandboxes and run commands. */
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { asId, type ExecExit, type ExecHandle, type ExecSpec, MIB, type ResolvedImage, type RuntimeDriver, type Sandbox, type SandboxAction, type SandboxId, type SandboxSpec } from '@faas-platform/core'
import { concatBytes, text } from '../bytes.js'
import { leakCounter, type LeakCounts } from '../leak-counter.js'

export interface ContractOptions {
  /** Shown in the test names. */
  readonly name: string
  /** A driver over this (existing, maybe used) data directory. */
  readonly makeDriver: (dataDir: string) => Promise<RuntimeDriver>
  /** Absolute path of a module that exports the same `makeDriver`: the crash tests run it in a child that is killed. Absent: crash tests use `crash`. */
  readonly driverModule?: string
  /** Simulates a killed owner where there is no process to kill (in-memory driver): makes sandboxes on the data directory and abandons them. */
  readonly crash?: (dataDir: string, count: number) => Promise<{ readonly ids: readonly SandboxId[]; readonly successor: RuntimeDriver }>
  /** OCI layout of a busybox image, imported as `faas/base:latest`; null: the driver has the image already. Default: the one that set-up builds. */
  readonly imageLayout?: string | null
  /** What names of host resources begin with. Default: the data directory's base name. */
  readonly hostPrefix?: (dataDir: string) => string
  /** A command that touches so many MiB and then prints `touched`. Default: awk. */
  readonly memoryHog?: (mib: number) => readonly string[]
  /** False for the in-memory driver only: no kernel stands between guest and host, so tests of one are left out. Default true. */
  readonly isolates?: boolean
  /** Cycles of the leak test. Default 100. */
  readonly cycles?: number
  /** Multiplies every deadline of the suite. Default 1. */
  readonly slowness?: number
}

export interface RunOptions extends Partial<Omit<ExecSpec, 'argv'>> {
  readonly signal?: AbortSignal
}

export interface RunResult {
  readonly stdout: Uint8Array
  readonly stderr: Uint8Array
  readonly out: string
  readonly err: string
  readonly exit: ExecExit
}

export interface Started {
  readonly handle: ExecHandle
  readonly out: () => string
  readonly err: () => string
}

export const IMAGE_REFERENCE = 'faas/base:latest'
export const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

export const never = (): AbortSignal => new AbortController().signal

export class Bench {
  readonly #sandboxes = new Set<Sandbox>()
  readonly countHost: () => LeakCounts

  private constructor(readonly options: ContractOptions, readonly driver: RuntimeDriver, readonly dataDir: string, readonly image: ResolvedImage) {
    this.countHost = leakCounter({ dataDir, hostPrefix: hostPrefixOf(options, dataDir) })
  }

  static async open(options: ContractOptions): Promise<Bench> {
    const dataDir = await makeDataDir('contract', options)
    const driver = await options.makeDriver(dataDir)
    return new Bench(options, driver, dataDir, await importImage(driver, options))
  }

  async close(): Promise<void> {
    try {
      await this.disposeSandboxes()
      await this.driver[Symbol.asyncDispose]()
    } finally {
      await rm(this.dataDir, { recursive: true, force: true })
    }
  }

  /** For tests of a feature that the driver does not have: its sandboxes must say so themselves. */
  async lacks(action: SandboxAction): Promise<void> {
    const answer = await (await this.sandbox()).capability(action)
    if (answer.can) throw new Error(`The driver declares no ${action}, but its sandbox offers it.`)
  }

  /** Processes as the guest counts them; a runtime with an own kernel has threads of its own on the host. */
  async guestProcesses(sandbox: Sandbox): Promise<number> {
    if (this.options.isolates === false) return (await sandbox.stats()).pids
    // One process, the shell itself: a pipeline's parts may not all be there when the others look.
    return Number((await this.run(sandbox, 'set -- /proc/[0-9]*; echo $#')).out.trim())
  }

  ms(deadlineMs: number): number {
    return deadlineMs * (this.options.slowness ?? 1)
  }

  spec(changes: Partial<SandboxSpec> = {}): SandboxSpec {
    return specOf(this.image, changes)
  }

  async sandbox(changes: Partial<SandboxSpec> = {}): Promise<Sandbox> {
    const sandbox = await this.driver.create(this.spec(changes), { signal: never() })
    this.#sandboxes.add(sandbox)
    return sandbox
  }

  async disposeSandboxes(): Promise<void> {
    const all = [...this.#sandboxes]
    this.#sandboxes.clear()
    await Promise.all(all.map((sandbox) => sandbox[Symbol.asyncDispose]()))
  }

  /** Starts a command without waiting for its end; text is run by `/bin/sh -c`. */
  async start(sandbox: Sandbox, command: string | readonly string[], options: RunOptions = {}): Promise<Started> {
    const parts: Record<'stdout' | 'stderr', Uint8Array[]> = { stdout: [], stderr: [] }
    const { signal = never(), ...spec } = options
    const handle = await sandbox.exec(
      { env: { PATH }, ...spec, argv: argvOf(command) },
      { onOutput: (stream, bytes) => void parts[stream].push(bytes.slice()) },
      { signal },
    )
    return { handle, out: () => text(concatBytes(parts.stdout)), err: () => text(concatBytes(parts.stderr)) }
  }

  async run(sandbox: Sandbox, command: string | readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const parts: Record<'stdout' | 'stderr', Uint8Array[]> = { stdout: [], stderr: [] }
    const { signal = never(), ...spec } = options
    const handle = await sandbox.exec(
      { env: { PATH }, ...spec, argv: argvOf(command) },
      { onOutput: (stream, bytes) => void parts[stream].push(bytes.slice()) },
      { signal },
    )
    const exit = await handle.wait()
    const stdout = concatBytes(parts.stdout)
    const stderr = concatBytes(parts.stderr)
    return { stdout, stderr, out: text(stdout), err: text(stderr), exit }
  }

  memoryHog(mib: number): readonly string[] {
    // Each element is an own copy: `i` makes the strings differ, so they are really touched.
    const script = `BEGIN { s = sprintf("%1048576s", "x"); for (i = 0; i < ${mib}; i++) a[i] = s i; print "touched" }`
    return this.options.memoryHog?.(mib) ?? ['awk', script]
  }
}

export function specOf(image: ResolvedImage, changes: Partial<SandboxSpec> = {}): SandboxSpec {
  return {
    id: asId<SandboxId>(randomUUID()), image, hostname: 'contract', labels: { purpose: 'contract' }, network: { mode: 'none', allowCidrs: [] },
    limits: { memoryBytes: 256 * MIB, cpuCores: 2, pidsMax: 128, writableBytesMax: 256 * MIB },
    ...changes,
  }
}

/** The image under test, imported when it is not there yet. */
export async function importImage(driver: RuntimeDriver, options: Pick<ContractOptions, 'imageLayout'>): Promise<ResolvedImage> {
  const layout = options.imageLayout === undefined ? builtLayout() : options.imageLayout
  if (layout !== null) await driver.images.importArchive(layout, { reference: IMAGE_REFERENCE, signal: never() })
  const image = await driver.images.resolve(IMAGE_REFERENCE, { pull: 'never', signal: never() })
  await driver.prepareImage(image, never())
  return image
}

/** A data directory as an operator would make it: others may pass through (user namespaces need that) but not look. */
export async function makeDataDir(purpose: string, options: Pick<ContractOptions, 'name'>): Promise<string> {
  const dataDir = await mkdtemp(join(tmpdir(), `faas-${purpose}-${options.name}-`))
  await chmod(dataDir, 0o711)
  return dataDir
}

export function hostPrefixOf(options: ContractOptions, dataDir: string): string {
  return options.hostPrefix?.(dataDir) ?? basename(dataDir)
}

/** The repository's root: where set-up keeps its tools and images. */
export function repositoryRoot(): string {
  for (let dir = dirname(fileURLToPath(import.meta.url)); dir !== '/'; dir = dirname(dir)) if (existsSync(join(dir, 'vitest.config.ts'))) return dir
  throw new Error('The contract suite runs from a checkout of the repository only.')
}

function builtLayout(): string {
  return join(repositoryRoot(), '.tools/images/base')
}

function argvOf(command: string | readonly string[]): readonly string[] {
  return typeof command === 'string' ? ['/bin/sh', '-c', command] : command
}
