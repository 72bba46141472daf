/**
 * The driver of runc, crun and gVisor: no daemon, an own image store, everything named after its owner.
 *
 * I1. A sandbox's directory exists before anything else of it and goes last, so `reclaim` finds whatever was made.
 * I2. On failure or abort of `create` nothing of the sandbox is left when the call returns.
 */
import { randomUUID } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import {
  asId, Cleanup, FaasError, MIB, Stopwatch, isFaasError, systemClock, type Clock, type ImageDigest, type ImageStore, type LogSink, type ProbeReport,
  type ReclaimReport, type ResolvedImage, type RuntimeDriver, type RuntimeFeatures, type Sandbox, type SandboxId, type SandboxSpec, type TimeBudget,
} from '@faas-platform/core'
import type { AgentClient } from '@faas-platform/agent-client'
import { CgroupHost, dataDirId, type EgressNetwork, type EgressNetworks, type HostKit, HostKitError, type Step } from '@faas-platform/host'
import { ensureAgentLayer } from './agent-layer.js'
import { IDS_PER_SANDBOX, READY_LINE, runtimeConfig } from './config-json.js'
import { connectAgent, connectPipes } from './connect.js'
import { directoryName, isPlainId, ownerPaths, sandboxPaths, type OwnerPaths, type SandboxPaths } from './layout.js'
import { Limiter } from './limiter.js'
import { probeRuntime } from './probe.js'
import { reclaimAll, removeSharedGroups, sandboxesIn } from './reclaim.js'
import { cgroupLimits, RUNTIME_KINDS, type OciRuntimeName, type RuntimeKind } from './runtime-command.js'
import { OciSandbox } from './sandbox.js'
import { guardStep, teardown } from './teardown.js'

/** What this driver needs of the image store besides the port. */
export interface RootfsStore extends ImageStore {
  /** The unpacked layers of an image, top-most first; they stay until released. */
  leaseRootfs(digest: ImageDigest): Promise<{ readonly layerDirs: readonly string[]; release(): void | Promise<void> }>
}

export interface OciDriverOptions {
  readonly name: OciRuntimeName
  /** The runtime's binary. */
  readonly runtimePath: string
  readonly dataDir: string
  readonly images: RootfsStore
  readonly hostkit: HostKit
  readonly hostkitPath: string
  /** The static `faas-agent` binary. */
  readonly agentPath: string
  readonly log: LogSink
  /** Outbound networks, shared by the drivers of a data directory; absent: sandboxes have loopback only. */
  readonly egress?: EgressNetworks
  readonly clock?: Clock
  /** For the runtime to start a sandbox and its agent to answer, ms. Default 20_000. */
  readonly startTimeoutMs?: number
  /**
   * First host id of the range that sandboxes' ids are mapped to; null: no user namespace.
   * Only where the kernel is shared (runc, crun). Default 0x70000000.
   */
  readonly idBase?: number | null
}

interface Launched {
  readonly ok: true
  readonly pid: number
  readonly pipes: readonly number[]
  /** Directories, files and groups made before. */
  readonly filesUs: number
  /** Fork, mount namespace and overlay, up to the runtime's own exec. */
  readonly forkUs: number
  readonly runtimeUs: number
  readonly readyUs: number
}
/** As the helper answers. */
type LaunchAnswer = Omit<Launched, 'filesUs'> | NotLaunched
interface NotLaunched {
  readonly ok: false
  readonly kind: 'timeout' | 'runtime' | 'agent'
  readonly message: string
  readonly log: string
}

/** What is prepared once per helper process: descriptors die with it. */
interface Ready {
  readonly generation: number
  readonly agentLayer: string
  readonly userns: number | null
}

interface LaunchParts {
  readonly paths: SandboxPaths
  readonly ready: Ready
  readonly network: EgressNetwork | null
  readonly layerDirs: readonly string[]
  readonly timeoutMs: number
}

const NO_IMAGE = asId<ImageDigest>('none')
const START_TIMEOUT_MS = 20_000
const ID_BASE = 0x7000_0000
/** Starting is CPU work: more at once only makes each of them later. */
const STARTS_PER_CORE = 2

export function createOciDriver(options: OciDriverOptions): OciDriver {
  return new OciDriver(options)
}

export class OciDriver implements RuntimeDriver {
  readonly name: OciRuntimeName
  readonly features: RuntimeFeatures
  readonly images: ImageStore
  readonly #options: OciDriverOptions
  readonly #kind: RuntimeKind
  readonly #owner: OwnerPaths
  readonly #cgroups = CgroupHost.detect()
  readonly #clock: Clock
  readonly #idBase: number | null
  readonly #starts = new Limiter(availableParallelism() * STARTS_PER_CORE)
  /** Sandboxes of this process, from before their first trace on the host until after their last. */
  readonly #live = new Map<SandboxId, OciSandbox | null>()
  #ready: Promise<Ready> | null = null
  /** Creation waits for a reclaim that runs: it takes away groups that seem unused. */
  #reclaiming: Promise<unknown> = Promise.resolve()

  constructor(options: OciDriverOptions) {
    this.#options = options
    this.#kind = RUNTIME_KINDS[options.name]
    this.name = options.name
    this.images = options.images
    this.#idBase = this.#kind.kernelShared ? (options.idBase === undefined ? ID_BASE : options.idBase) : null
    this.#clock = options.clock ?? systemClock
    this.#owner = ownerPaths(options.dataDir, dataDirId(options.dataDir), options.name)
    this.features = {
      isolation: this.#kind.isolation,
      pause: true,
      checkpoint: false,
      retain: true,
      network: options.egress === undefined ? ['none'] : ['none', 'egress'],
      tty: true,
      resizeLimits: true,
      busyWhenIdle: !this.#kind.kernelShared,
    }
  }

  probe(signal: AbortSignal): Promise<ProbeReport> {
    return probeRuntime({
      ...this.#options,
      cgroups: this.#cgroups,
      userNamespace: this.#idBase !== null,
      makeSandbox: (within) => this.create(emptySpec(), { signal: within }),
      network: async () => this.#options.egress?.facts() ?? [{ name: 'egress network', ok: false, evidence: 'not configured' }],
      signal,
    })
  }

  async prepareImage(image: ResolvedImage, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    await this.#prepare()
    const lease = await this.#options.images.leaseRootfs(image.digest)
    await lease.release()
  }

  async create(spec: SandboxSpec, options: { readonly signal: AbortSignal }): Promise<Sandbox> {
    options.signal.throwIfAborted()
    if (!isPlainId(spec.id)) throw new FaasError('sandbox/create-failed', { message: 'The sandbox id can not be used as a file name.' })
    if (this.#live.has(spec.id)) throw new FaasError('sandbox/create-failed', { message: 'A sandbox of this id exists already.' })
    await this.#reclaiming
    this.#live.set(spec.id, null)
    const cleanup = new Cleanup()
    cleanup.add(() => this.#live.delete(spec.id))
    try {
      const sandbox = await this.#create(spec, options.signal, cleanup)
      this.#live.set(spec.id, sandbox)
      return sandbox
    } catch (error) {
      try {
        await cleanup.run()
      } catch (left) {
        this.#options.log.error({ sandbox: spec.id, error: String(left) }, 'a sandbox that failed to start could not be freed; reclaim will')
      }
      throw asCreateError(error, options.signal)
    }
  }

  async list(signal: AbortSignal): Promise<readonly SandboxId[]> {
    signal.throwIfAborted()
    return sandboxesIn(this.#owner.sandboxesDir, this.#owner)
  }

  async reclaim(keep: ReadonlySet<SandboxId>, signal: AbortSignal): Promise<ReclaimReport> {
    signal.throwIfAborted()
    const previous = this.#reclaiming
    const run = previous.then(() =>
      reclaimAll({
        owner: this.#owner,
        cgroups: this.#cgroups,
        hostkit: this.#options.hostkit,
        log: this.#options.log,
        keep: new Set([...keep, ...this.#live.keys()]),
        inUse: this.#live.size > 0,
        ...(this.#options.egress === undefined ? {} : { egress: this.#options.egress }),
      }),
    )
    this.#reclaiming = run.catch(() => {}) // the caller gets it; the next in line only waits
    return run
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const all = [...this.#live.values()].flatMap((sandbox) => sandbox ?? [])
    const ended = await Promise.allSettled(all.map((sandbox) => sandbox[Symbol.asyncDispose]()))
    await removeSharedGroups({ owner: this.#owner, cgroups: this.#cgroups, hostkit: this.#options.hostkit })
    const failures = ended.flatMap((result) => (result.status === 'rejected' ? [result.reason as unknown] : []))
    if (failures.length > 0) throw new AggregateError(failures, 'Some sandboxes could not be freed.')
  }

  /** The layers of a sandbox's image; none for the probe's, which has no image. */
  async #lease(spec: SandboxSpec): ReturnType<RootfsStore['leaseRootfs']> {
    if (spec.image.digest === NO_IMAGE) return { layerDirs: [], release() {} }
    return this.#options.images.leaseRootfs(spec.image.digest)
  }

  /** Prepares what all sandboxes share; again when the helper that held it is gone. */
  async #prepare(): Promise<Ready> {
    const { hostkit } = this.#options
    if (this.#ready !== null) {
      const ready = await this.#ready
      if (ready.generation === hostkit.generation) return ready
      this.#ready = null
    }
    this.#ready ??= this.#prepareOnce().catch((error: unknown) => {
      this.#ready = null
      throw error
    })
    return this.#ready
  }

  async #prepareOnce(): Promise<Ready> {
    const { hostkit, dataDir, agentPath } = this.#options
    const layers = join(dataDir, 'layers')
    for (const dir of [this.#owner.sandboxesDir, this.#owner.retainedDir, layers]) await mkdir(dir, { recursive: true, mode: 0o711 })
    const agentLayer = await ensureAgentLayer(layers, hostkit, { agentPath, keepTmpOnDisk: this.name === 'gvisor' })
    await hostkit.enterGroup([this.#cgroups.processDirectory(this.#owner.rootCgroup)], this.#cgroups.ownProcessDirectory())
    const userns = this.#idBase === null ? null : Number(await hostkit.call('userns', this.#idBase, IDS_PER_SANDBOX))
    return { generation: hostkit.generation, agentLayer, userns }
  }

  /** Groups that all sandboxes of this driver share. A reclaim may have taken them away, so each creation makes sure. */
  #sharedGroups(): Step[] {
    const { rootCgroup, cgroup } = this.#owner
    const cgroups = this.#cgroups
    const dirsOf = (group: string): readonly string[] => (this.#kind.cgroups === 'driver' ? cgroups.ownDirectories(group) : [cgroups.processDirectory(group)])
    return [
      ...[rootCgroup, cgroup].flatMap((group) => dirsOf(group)).map((dir): Step => ['mkdir', dir, '755']),
      ...['', rootCgroup, cgroup].flatMap((group) => cgroups.delegate(group)).map(([file, value]): Step => ['control', file, value]),
    ]
  }

  async #create(spec: SandboxSpec, signal: AbortSignal, cleanup: Cleanup): Promise<OciSandbox> {
    const { hostkit, log, startTimeoutMs = START_TIMEOUT_MS } = this.#options
    const watch = new Stopwatch(this.#clock)
    const ready = await this.#prepare()
    const lease = await this.#lease(spec)
    cleanup.add(() => lease.release())
    const network = await this.#network(spec)
    if (network !== null) cleanup.add(() => network.release())
    const slot = await this.#starts.take(signal)
    watch.lap('queue')
    const paths = sandboxPaths(this.#owner, spec.id)
    cleanup.add(() => teardown({ id: spec.id, paths, hostkit, cgroups: this.#cgroups, log }))
    let launched: Launched
    let agent: AgentClient
    try {
      launched = await this.#launch(spec, { paths, ready, network, layerDirs: lease.layerDirs, timeoutMs: startTimeoutMs })
      watch.lap('start')
      signal.throwIfAborted()
      agent = await this.#connect(launched, signal)
      watch.lap('connect')
    } finally {
      slot.release()
      await network?.closeHandle()
    }
    cleanup.release()
    return new OciSandbox({
      spec,
      runtime: this.name,
      paths,
      retainedPath: join(this.#owner.retainedDir, directoryName(this.#owner, spec.id)),
      mainPid: launched.pid,
      agent,
      hostkit,
      hostkitPath: this.#options.hostkitPath,
      cgroups: this.#cgroups,
      log,
      timeBudget: phases(watch.budget(), launched),
      commandsVisible: this.#kind.kernelShared,
      cgroupLimits: (limits) => cgroupLimits(this.#kind, limits),
      release: async () => {
        this.#live.delete(spec.id)
        await network?.release()
        await lease.release()
      },
    })
  }

  async #network(spec: SandboxSpec): Promise<EgressNetwork | null> {
    if (spec.network.mode === 'none') return null
    const { egress } = this.#options
    if (egress === undefined) {
      throw new FaasError('network/unavailable', { message: 'Sandboxes have no outbound network here.', hint: '`nft` was not found when the platform started.' })
    }
    return egress.acquire(spec.network.allowCidrs, this.#idBase === null ? null : { base: this.#idBase, count: IDS_PER_SANDBOX })
  }

  async #launch(spec: SandboxSpec, parts: LaunchParts): Promise<Launched> {
    const { hostkit, runtimePath } = this.#options
    const { paths, ready, network } = parts
    const kind = this.#kind
    const config = runtimeConfig(spec, {
      cgroupsPath: kind.cgroups === 'runtime' ? paths.cgroup : null,
      agentArgs: kind.agent === 'socket' ? ['--listen', '/.faas/agent.sock'] : ['--stdio'],
      idBase: this.#idBase,
      netnsPath: network?.netnsPath ?? null,
      usernsPath: network?.usernsPath ?? null,
      seccomp: kind.kernelShared,
      swapLimited: this.#cgroups.swapLimited,
      rootPath: paths.rootfs,
    })
    const enter = kind.cgroups === 'driver' ? this.#cgroups.ownDirectories(paths.cgroup) : []
    const argv = kind.run({ path: runtimePath, state: paths.state, log: paths.log, bundle: paths.bundle, pidFile: paths.pidFile, id: spec.id, network: spec.network.mode })
    const steps: Step[] = [
      ...this.#sharedGroups(),
      ...[paths.dir, paths.bundle, paths.rootfs, paths.writable, paths.upper, paths.work, paths.identity, join(paths.identity, 'etc')].map(
        (dir): Step => ['mkdir', dir, dir === paths.dir ? '711' : '755'],
      ),
      ['write', join(paths.identity, 'etc/hostname'), '644', `${spec.hostname}\n`],
      ['write', join(paths.identity, 'etc/hosts'), '644', hostsFile(spec.hostname)],
      ...(network === null ? [] : [['write', join(paths.identity, 'etc/resolv.conf'), '644', network.resolvConf] as Step]),
      ['write', paths.config, '600', JSON.stringify(config)],
    ]
    for (const dir of enter) steps.push(['mkdir', dir, '755'])
    if (kind.cgroups === 'driver') {
      for (const [file, value] of this.#cgroups.limits(paths.cgroup, cgroupLimits(kind, spec.limits))) steps.push(['control', file, value])
    }
    steps.push(guardStep(spec.id, paths, this.#cgroups, spec.limits.writableBytesMax))
    steps.push([
      'launch',
      `argv=${argv.join('\0')}`,
      'env=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      `cwd=${paths.bundle}`,
      `cgroups=${enter.map((dir) => join(dir, 'cgroup.procs')).join('\0')}`,
      `target=${paths.rootfs}`,
      `lowers=${[paths.identity, ready.agentLayer, ...parts.layerDirs].join('\0')}`,
      `writable=${paths.writable}`,
      ...(ready.userns === null ? [] : [`userns=${ready.userns}`, `idbase=${this.#idBase}`]),
      ...(kind.hybridCgroups || this.#cgroups.unifiedBeside === null ? [] : [`hidden=${this.#cgroups.unifiedBeside}`]),
      `pidfile=${paths.pidFile}`,
      `log=${paths.log}`,
      `ready=${kind.agent === 'socket' ? READY_LINE : ''}`,
      `timeout=${parts.timeoutMs}`,
    ])
    const results = await hostkit.run(steps)
    const outcome = JSON.parse(results.at(-1)?.text ?? '') as LaunchAnswer
    if (outcome.ok) return { ...outcome, filesUs: results.slice(0, -1).reduce((sum, { micros }) => sum + micros, 0) }
    throw new FaasError(outcome.kind === 'timeout' ? 'sandbox/create-timeout' : 'sandbox/create-failed', {
      message: outcome.message,
      cause: new Error(outcome.log),
    })
  }

  async #connect(launched: Launched, signal: AbortSignal): Promise<AgentClient> {
    if (this.#kind.agent === 'socket') return connectAgent(launched.pid, { signal })
    const { hostkit } = this.#options
    const [toAgent, fromAgent] = launched.pipes
    if (toAgent === undefined || fromAgent === undefined) throw new FaasError('sandbox/create-failed', { message: 'The helper gave no way to the agent.' })
    try {
      return await connectPipes(hostkit.pid, { toAgent, fromAgent }, { signal, timeoutMs: this.#options.startTimeoutMs ?? START_TIMEOUT_MS })
    } finally {
      await hostkit.run([['close', toAgent], ['close', fromAgent]])
    }
  }
}

/** The one round trip to the helper, opened up: what it spent itself, and the rest on the way there and back. */
function phases({ start = 0, connect = 0, ...before }: TimeBudget, { filesUs, forkUs, runtimeUs, readyUs }: Launched): TimeBudget {
  const [files, mount, runtime, agent] = [filesUs, forkUs, runtimeUs, readyUs].map((us) => us / 1000) as [number, number, number, number]
  const helper = Math.max(0, Math.round((start - files - mount - runtime - agent) * 1000) / 1000)
  return { ...before, files, mount, runtime, agent, helper, connect }
}

/** What the probe runs: nothing but the agent. */
function emptySpec(): SandboxSpec {
  return {
    id: asId<SandboxId>(`probe-${randomUUID()}`),
    image: {
      digest: NO_IMAGE, reference: 'none', sizeBytes: 0, standIn: false,
      config: { env: {}, entrypoint: [], cmd: [], workingDir: '/', user: '', labels: {} },
    },
    limits: { memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 16 * MIB },
    network: { mode: 'none', allowCidrs: [] },
    hostname: 'probe',
    labels: {},
  }
}

function hostsFile(hostname: string): string {
  return `127.0.0.1\tlocalhost ${hostname}\n::1\tlocalhost ip6-localhost ip6-loopback ${hostname}\n`
}

function asCreateError(error: unknown, signal: AbortSignal): unknown {
  if (signal.aborted || isFaasError(error)) return error
  if (error instanceof HostKitError) {
    return new FaasError('sandbox/create-failed', { message: 'The host could not make the sandbox.', cause: error })
  }
  return error
}
