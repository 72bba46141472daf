/**
 * The in-memory runtime driver: real answers from a small model of a machine, for tests of everything above drivers.
 * It passes the same contract suite as the real drivers, as far as a model without a kernel can.
 *
 * Faults are set on `driver.faults` and by `driver.lose(id)`; live resources are counted by `driver.live()`.
 */
import {
  asId, FaasError, systemClock, type Clock, type ImageConfig, type ProbeReport, type ReclaimReport, type ResolvedImage, type RetainedState, type RuntimeDriver,
  type RuntimeFeatures, type RuntimeName, type Sandbox, type SandboxId, type SandboxSpec,
} from '@faas-platform/core'
import { text } from '../bytes.js'
import { absolute } from './file-tree.js'
import { MemoryImageStore, PROGRAM_MAGIC } from './image-store.js'
import { Kernel, type Program } from './kernel.js'
import { builtinPrograms } from './programs.js'
import { MemorySandbox } from './sandbox.js'
import type { Resolve } from './shell/run.js'

/** What survives a driver, as a host survives a killed process. */
export class MemoryHost {
  readonly images: MemoryImageStore
  readonly sandboxes = new Map<SandboxId, { readonly sandbox: MemorySandbox; owner: MemoryDriver }>()
  readonly retained = new Set<RetainedState>()

  constructor(clock: Clock = systemClock) {
    this.images = new MemoryImageStore(() => clock.nowMs())
    this.images.isUsed = (digest) => [...this.sandboxes.values()].some(({ sandbox }) => sandbox.spec.image.digest === digest)
  }
}

/** Set any of them at any time; they hold for later calls. */
export interface MemoryFaults {
  createDelayMs: number
  /** The next N creations fail with `createError`. */
  failCreates: number
  createError: FaasError
  execDelayMs: number
  /** The next N execs never start; only their signal or the sandbox's end gets them out. */
  hangExecs: number
  resolveDelayMs: number
  /** Laid over the probe's answer. */
  probe: Partial<ProbeReport>
  disposeDelayMs: number
}

export interface MemoryDriverOptions {
  readonly clock?: Clock
  readonly host?: MemoryHost
  /** To stand in for another runtime. Default `memory`. */
  readonly name?: RuntimeName
  readonly features?: Partial<RuntimeFeatures>
  /** More programs, by name; they appear in /bin of `faas/base:latest`. */
  readonly programs?: Readonly<Record<string, Program>>
  /** References that get the base tree besides `faas/base:latest`. */
  readonly images?: readonly string[]
  readonly imageConfig?: Partial<ImageConfig>
}

export const BASE_REFERENCE = 'faas/base:latest'

const LOSS_MESSAGES = { lost: 'The sandbox ended by itself.', oom: 'The sandbox ran out of memory.', disk_limit: 'The sandbox wrote more than its limit.' } as const

const BASE_FILES = {
  '/etc/passwd': 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n',
  '/etc/group': 'root:x:0:\nnogroup:x:65534:\n',
}

export class MemoryDriver implements RuntimeDriver {
  readonly name: RuntimeName
  readonly features: RuntimeFeatures
  readonly images: MemoryImageStore
  readonly host: MemoryHost
  readonly faults: MemoryFaults = {
    createDelayMs: 0, failCreates: 0, createError: new FaasError('sandbox/create-failed', { message: 'The injected fault made the creation fail.' }),
    execDelayMs: 0, hangExecs: 0, resolveDelayMs: 0, probe: {}, disposeDelayMs: 0,
  }
  /** Sandboxes asked for, made, and ended, since the start. */
  readonly counts = { creating: 0, created: 0, failed: 0, ended: 0, execs: 0, prepared: 0 }
  readonly #clock: Clock
  readonly #programs: Record<string, Program>

  constructor(options: MemoryDriverOptions = {}) {
    this.#clock = options.clock ?? systemClock
    this.host = options.host ?? new MemoryHost(this.#clock)
    this.images = this.host.images
    this.name = options.name ?? 'memory'
    this.features = { isolation: 'none', pause: true, checkpoint: false, retain: true, network: ['none', 'egress'], tty: true, resizeLimits: true, busyWhenIdle: false, ...options.features }
    this.#programs = { ...builtinPrograms((proc, name) => this.#resolve(proc, name)), ...options.programs }
    for (const reference of [BASE_REFERENCE, ...(options.images ?? [])]) {
      this.images.add(reference, { files: BASE_FILES, programs: Object.keys(this.#programs), ...(options.imageConfig === undefined ? {} : { config: options.imageConfig }) })
    }
    this.images.beforeResolve = () => (this.faults.resolveDelayMs > 0 ? this.#clock.delay(this.faults.resolveDelayMs) : Promise.resolve())
  }

  /** Live resources: all zero when nothing leaks. */
  live(): { sandboxes: number; processes: number; retained: number; creating: number } {
    const sandboxes = [...this.host.sandboxes.values()].map(({ sandbox }) => sandbox)
    return {
      sandboxes: sandboxes.length,
      processes: sandboxes.reduce((sum, sandbox) => sum + sandbox.kernel.procs.size, 0),
      retained: this.host.retained.size,
      creating: this.counts.creating,
    }
  }

  /** Makes a sandbox die by itself. */
  lose(id: SandboxId, reason: 'lost' | 'oom' | 'disk_limit' = 'lost'): void {
    const found = this.host.sandboxes.get(id)
    if (found === undefined) throw new FaasError('sandbox/destroyed', { message: `There is no sandbox ${id}.` })
    found.sandbox.die(reason, LOSS_MESSAGES[reason])
  }

  probe(): Promise<ProbeReport> {
    const report: ProbeReport = {
      usable: true, reason: 'It runs inside this process and isolates nothing.', version: process.version, vulnerabilities: [],
      facts: [{ name: 'process', ok: true, evidence: `pid ${process.pid}, ${Object.keys(this.#programs).length} programs` }],
    }
    return Promise.resolve({ ...report, ...this.faults.probe })
  }

  async prepareImage(image: ResolvedImage, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.images.tree(image.digest) === undefined) throw new FaasError('image/not-found', { message: `There is no image ${image.digest}.` })
    this.counts.prepared++
    await Promise.resolve()
  }

  async create(spec: SandboxSpec, options: { readonly signal: AbortSignal }): Promise<Sandbox> {
    options.signal.throwIfAborted()
    const startMs = this.#clock.monotonicMs()
    this.counts.creating++
    try {
      if (this.faults.createDelayMs > 0) await this.#clock.delay(this.faults.createDelayMs, options.signal)
      if (this.faults.failCreates > 0) {
        this.faults.failCreates--
        throw this.faults.createError
      }
      if (!this.features.network.includes(spec.network.mode)) throw new FaasError('network/unavailable', { message: `Network mode ${spec.network.mode} is not available.` })
      const base = this.images.tree(spec.image.digest)
      if (base === undefined) throw new FaasError('sandbox/create-failed', { message: `The image ${spec.image.digest} is gone.` })
      const sandbox = this.#assemble(spec, base.fork(() => this.#clock.nowMs()), this.#clock.monotonicMs() - startMs)
      this.host.sandboxes.set(spec.id, { sandbox, owner: this })
      this.counts.created++
      return sandbox
    } catch (error) {
      this.counts.failed++
      throw error
    } finally {
      this.counts.creating--
    }
  }

  list(): Promise<readonly SandboxId[]> {
    return Promise.resolve([...this.host.sandboxes.keys()])
  }

  async reclaim(keep: ReadonlySet<SandboxId>): Promise<ReclaimReport> {
    let sandboxes = 0
    let processes = 0
    for (const [id, { sandbox, owner }] of [...this.host.sandboxes]) {
      if (keep.has(id) || owner === this) continue
      sandboxes++
      processes += sandbox.kernel.procs.size
      await sandbox[Symbol.asyncDispose]()
    }
    return { sandboxes, mounts: 0, cgroups: 0, networkNamespaces: 0, processes, directories: 0 }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { sandbox, owner } of [...this.host.sandboxes.values()]) if (owner === this) await sandbox[Symbol.asyncDispose]()
  }

  #assemble(spec: SandboxSpec, tree: MemorySandbox['tree'], createMs: number): MemorySandbox {
    tree.quotaBytes = spec.limits.writableBytesMax
    const kernel = new Kernel(this.#clock, tree, spec.hostname, { memoryBytes: spec.limits.memoryBytes, pidsMax: spec.limits.pidsMax })
    return new MemorySandbox({
      runtime: this.name, features: this.features, spec, kernel, timeBudget: { create: createMs },
      resolve: (proc, name) => this.#resolve(proc, name),
      beforeExec: (signal) => this.#beforeExec(signal),
      onEnd: () => {
        this.counts.ended++
        this.host.sandboxes.delete(asId<SandboxId>(spec.id))
      },
      onRetain: (state) => void this.host.retained.add(state),
      onRelease: (state) => void this.host.retained.delete(state),
    })
  }

  async #beforeExec(signal: AbortSignal): Promise<void> {
    this.counts.execs++
    if (this.faults.hangExecs > 0) {
      this.faults.hangExecs--
      await new Promise<never>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true }))
    }
    if (this.faults.execDelayMs > 0) await this.#clock.delay(this.faults.execDelayMs, signal)
  }

  /** PATH look-up; an executable is one of our programs by its name, or a `#!/bin/sh` script. */
  readonly #resolve: Resolve = (proc, name) => {
    const { tree } = proc.kernel
    const places = name.includes('/') ? [absolute(name, proc.cwd)] : (proc.env.get('PATH') ?? '/bin').split(':').map((dir) => `${dir}/${name}`)
    let denied = false
    for (const path of places) {
      if (!tree.exists(path)) continue
      const node = tree.lookup(path)
      if (node.type !== 'file') {
        denied ||= name.includes('/')
        continue
      }
      if ((node.mode & 0o111) === 0) {
        denied = true
        continue
      }
      const head = text(node.data.subarray(0, 64))
      const program = this.#programs[path.slice(path.lastIndexOf('/') + 1)]
      if (program !== undefined && (head.startsWith(text(PROGRAM_MAGIC)) || head.startsWith('\x7fELF'))) return program
      const sh = this.#programs['sh']
      if (head.startsWith('#!') && sh !== undefined) {
        return (child) => {
          child.argv = ['sh', path, ...child.argv.slice(1)]
          return sh(child)
        }
      }
      denied = true
    }
    return denied ? 'denied' : undefined
  }
}
