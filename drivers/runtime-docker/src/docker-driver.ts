/**
 * Sandboxes as containers of a Docker Engine.
 *
 * I1. Everything made on the engine carries the data directory's label and name; nothing without it is ever touched.
 * I2. A creation that fails or is aborted has undone itself by the time it says so.
 * I3. What the engine can do is found out once, by trying, and again after it failed.
 */
import path from 'node:path'
import { HostKit } from '@faas-platform/host'
import {
  asId, Cleanup, egressAllowCidrs, FaasError, Stopwatch,
  type Clock, type Ids, type IsolationClass, type LogSink, type ProbeReport, type ReclaimReport, type ResolvedImage, type RuntimeDriver, type RuntimeFeatures,
  type Sandbox, type SandboxId, type SandboxSpec, type ImageDigest,
} from '@faas-platform/core'
import { decideDelivery, removeAgentVolumes, type DeliveryProof } from './agent-delivery.js'
import { readAgent } from './agent-dir.js'
import { startContainerWithAgent, type StartedContainer } from './container-agent.js'
import { containerBody, containerName, LABEL_DATA_DIR, LABEL_SANDBOX } from './container-config.js'
import { DockerImages, type RegistryCredentials } from './docker-images.js'
import { DockerSandbox } from './docker-sandbox.js'
import type { DriverContext } from './driver-context.js'
import { inspectContainer, listContainers, removeContainer } from './engine-calls.js'
import { EngineClient } from './engine-client.js'
import { EngineError, isEngineStatus, toDriverError } from './engine-error.js'
import { EgressNetwork } from './egress-network.js'
import { readEngineInfo, type EngineInfo } from './engine-info.js'
import { optionalNumber, text, textMap } from './engine-shape.js'
import { negotiate, type EngineVersion } from './engine-version.js'
import { loadScratchImage, removeScratchImage } from './scratch-image.js'
import { StandIns } from './stand-ins.js'

const ARCHIVE_BYTES_MAX = 32 * 1024 ** 3
const REMOVE_DEADLINE_MS = 30_000
/** Entries looked at when a writable layer is measured: bounds one look at a guest that makes nothing but files. */
const MEASURE_ENTRIES_MAX = 2_000_000
const REMOVALS_AT_ONCE = 4
const DISCOVERY_DEADLINE_MS = 60_000

export interface DockerDriverOptions {
  /** The engine's unix socket. */
  readonly socketPath: string
  readonly dataDir: string
  /** Short, of `[a-z0-9]`; part of every name on the engine. */
  readonly dataDirId: string
  /** The static guest agent. */
  readonly agentPath: string
  /** The host helper; absent: the writable layer is measured by the engine, which is slower. */
  readonly hostkit?: HostKit
  /** The `nft` program; with it, and root, and an engine on this host, sandboxes can have network policy `egress`. */
  readonly nftPath?: string
  /** An OCI runtime that the engine knows (`runsc`, `crun`). Default `runc`: not the engine's default, which can be anything. */
  readonly runtime?: string
  /** How the agent gets in and is spoken to; absent: the best way that works, found by trying. */
  readonly agentDelivery?: 'attach' | 'volume'
  /**
   * A seccomp profile instead of the engine's own, as Docker or the OCI runtime specification writes it. Engines before
   * 23 need it where guests are hostile: their own profile lets io_uring and vsock through.
   */
  readonly seccompProfile?: object
  /** Whether the engine may be told to pull from a registry. Default: every one. @throws FaasError `image/registry-refused` */
  readonly checkRegistry?: (registry: string) => Promise<void>
  readonly credentials?: (registry: string) => Promise<RegistryCredentials | undefined>
  readonly clock: Clock
  readonly ids: Ids
  readonly log: LogSink
}

/** What was found out about the engine. I3. */
interface Environment {
  readonly engine: EngineVersion
  readonly info: EngineInfo
  readonly scratch: ImageDigest
  readonly proof: DeliveryProof
}

export class DockerDriver implements RuntimeDriver {
  readonly name = 'docker'
  readonly features: RuntimeFeatures
  readonly images: DockerImages
  readonly #options: DockerDriverOptions
  readonly #client: EngineClient
  readonly #context: DriverContext
  readonly #runtime: string
  readonly #live = new Map<SandboxId, DockerSandbox>()
  readonly #retained = new Set<SandboxId>()
  readonly #egress: EgressNetwork | undefined
  #creating = 0
  #closing = false
  #engine: Promise<EngineVersion> | undefined
  #environment: Promise<Environment> | undefined

  constructor(options: DockerDriverOptions) {
    this.#options = options
    this.#runtime = options.runtime ?? 'runc'
    this.features = {
      isolation: isolationOf(this.#runtime),
      pause: true, checkpoint: false, retain: keepsFilesOnHost(this.#runtime), network: options.nftPath === undefined ? ['none'] : ['none', 'egress'], tty: true, resizeLimits: true, busyWhenIdle: this.#runtime === 'runsc',
    }
    const client = new EngineClient({ socketPath: options.socketPath })
    this.#client = client
    const seccompProfile = options.seccompProfile === undefined ? undefined : JSON.stringify(options.seccompProfile)
    this.#context = {
      client, clock: options.clock, ids: options.ids, log: options.log, dataDirId: options.dataDirId, runtime: this.#runtime, seccompProfile, agentDelivery: options.agentDelivery,
      agentParentDir: path.join(options.dataDir, 'docker', 'agent'), apiVersion: () => client.version,
    }
    if (options.nftPath !== undefined) this.#egress = new EgressNetwork({ client, dataDirId: options.dataDirId, nftPath: options.nftPath, log: options.log })
    this.images = new DockerImages({
      client,
      engine: (signal) => this.#negotiated(signal),
      standIns: new StandIns(path.join(options.dataDir, 'docker', 'stand-ins.json')),
      temporaryDir: path.join(options.dataDir, 'docker', 'tmp'),
      archiveBytesMax: ARCHIVE_BYTES_MAX,
      credentials: options.credentials ?? (() => Promise.resolve(undefined)),
      checkRegistry: options.checkRegistry ?? (async () => {}),
    })
  }

  async probe(signal: AbortSignal): Promise<ProbeReport> {
    this.#forget()
    let engine: EngineVersion | undefined
    try {
      engine = await this.#negotiated(signal)
      const { info, proof } = await this.#known(signal)
      const failed = info.facts.filter(({ ok }) => !ok)
      const agent = { name: 'agent', ok: true, evidence: `${proof.evidence} (${proof.delivery.source.kind}, ${proof.delivery.transport})` }
      const facts = [...info.facts, agent, ...proof.rejected.map((evidence) => ({ name: 'tried', ok: false, evidence }))]
      if (failed.length > 0) {
        return {
          usable: false, reason: `Docker Engine ${engine.engine} is not safe to use: ${failed.map(({ evidence }) => evidence).join('; ')}.`,
          hint: 'Correct the engine\'s configuration and look again.', version: engine.engine, vulnerabilities: info.vulnerabilities, facts,
        }
      }
      return { usable: true, reason: `A container of Docker Engine ${engine.engine} with the guest agent was started and answered.`, version: engine.engine, vulnerabilities: info.vulnerabilities, facts }
    } catch (error) {
      signal.throwIfAborted()
      return unusable(error, engine?.engine ?? null, this.#options.socketPath)
    }
  }

  async prepareImage(image: ResolvedImage, signal: AbortSignal): Promise<void> {
    await this.images.requireById(image.digest, signal)
    await this.#known(signal)
  }

  async create(spec: SandboxSpec, options: { readonly signal: AbortSignal }): Promise<Sandbox> {
    const { signal } = options
    const { clock, log } = this.#options
    const watch = new Stopwatch(clock)
    const cleanup = new Cleanup()
    this.#creating++
    try {
      const { proof } = await this.#known(signal)
      const egress = spec.network.mode === 'egress' ? await this.#egressFor(proof) : undefined
      const allowCidrs = egress === undefined ? [] : egressAllowCidrs(spec.network.allowCidrs)
      watch.lap('prepare')
      const { delivery, bareNetwork } = proof
      const { dataDirId } = this.#options
      const body = containerBody(spec, { dataDirId, apiVersion: this.#client.version, runtime: this.#runtime, seccompProfile: this.#context.seccompProfile, delivery, network: egress?.name ?? null, bareNetwork })
      const started = await startContainerWithAgent({ client: this.#client, name: containerName(dataDirId, spec.id), body, delivery, look: proof.host, clock, watch, cleanup, signal })
      let release: () => Promise<void> = () => Promise.resolve()
      if (egress !== undefined) {
        const address = await egress.admit(started.inspect, allowCidrs)
        release = () => egress.release(address)
        cleanup.add(release)
        watch.lap('network')
      }
      signal.throwIfAborted()
      const sandbox = this.#sandbox(spec, started, watch, release)
      cleanup.release()
      this.#live.set(spec.id, sandbox)
      return sandbox
    } catch (error) {
      await cleanup.run().catch((failure: unknown) => {
        log.error({ sandboxId: spec.id, error: failure }, 'a failed creation could not be undone; the next start-up will reclaim it')
      })
      signal.throwIfAborted()
      throw createError(error)
    } finally {
      this.#creating--
    }
  }

  async list(signal: AbortSignal): Promise<readonly SandboxId[]> {
    return (await this.#containers(signal)).map(({ sandboxId }) => sandboxId)
  }

  async reclaim(keep: ReadonlySet<SandboxId>, signal: AbortSignal): Promise<ReclaimReport> {
    const found = (await this.#containers(signal)).filter(({ sandboxId }) => !keep.has(sandboxId) && !this.#live.has(sandboxId) && !this.#retained.has(sandboxId))
    const queue = [...found]
    const work = async (): Promise<void> => {
      for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
        signal.throwIfAborted()
        await this.#removed(next.containerId)
      }
    }
    await Promise.all(Array.from({ length: REMOVALS_AT_ONCE }, work))
    if (this.#live.size === 0 && this.#creating === 0) await this.#removeShared()
    return { sandboxes: found.length, mounts: 0, cgroups: 0, networkNamespaces: 0, processes: found.filter(({ running }) => running).length, directories: 0 }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true
    const results = await Promise.allSettled([...this.#live.values()].map((sandbox) => sandbox[Symbol.asyncDispose]()))
    if (this.#engine !== undefined) {
      await this.#removeShared().catch((error: unknown) => {
        this.#options.log.warn({ error }, 'network or volume of this data directory could not be removed; the next start-up will reclaim it')
      })
    }
    this.#client.close()
    const failed = results.find((result) => result.status === 'rejected')
    if (failed !== undefined) throw failed.reason
  }

  #sandbox(spec: SandboxSpec, started: StartedContainer, watch: Stopwatch, release: () => Promise<void>): DockerSandbox {
    const { clock, log } = this.#options
    return new DockerSandbox({
      spec, containerId: started.id, client: this.#client, agent: started.agent, attach: started.attach, host: started.host, clock, log,
      measure: (enough) => this.#measure(started, enough),
      timeBudget: watch.budget(),
      retainable: this.features.retain,
      onEnding: release,
      onGone: () => {
        this.#live.delete(spec.id)
        this.#retained.delete(spec.id)
      },
      onRetained: () => {
        this.#live.delete(spec.id)
        this.#retained.add(spec.id)
      },
    })
  }

  /** What the sandboxes of this data directory have in common, except what this process goes on using. */
  async #removeShared(): Promise<void> {
    const environment = this.#environment === undefined ? undefined : await this.#environment.catch(() => undefined)
    const source = environment?.proof.delivery.source
    try {
      await this.#egress?.remove()
      await removeAgentVolumes(this.#context, this.#closing || source?.kind !== 'volume' ? undefined : source.name)
      if (this.#closing && environment !== undefined) await removeScratchImage(this.#client, environment.scratch)
    } catch (error) {
      throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine could not take away what sandboxes shared.')
    }
  }

  async #egressFor(proof: DeliveryProof): Promise<EgressNetwork> {
    if (this.#egress === undefined || !proof.host) {
      throw new FaasError('network/unavailable', { message: 'The host can not enforce the network policy of this sandbox.', hint: 'Egress needs a Docker Engine on this host, root, and the program nft.' })
    }
    await this.#egress.ensure()
    return this.#egress
  }

  /** Bytes that a sandbox has added: counted by the host helper where it can see them, else by the engine. */
  async #measure(started: StartedContainer, enoughBytes: number): Promise<number> {
    const { hostkit } = this.#options
    const dirs = started.host?.writableDirs ?? []
    if (hostkit === undefined || dirs.length === 0) {
      return optionalNumber(await inspectContainer(this.#client, started.id, { size: true }), 'SizeRw') ?? 0
    }
    const results = await hostkit.run(dirs.map((dir) => ['usage', dir, MEASURE_ENTRIES_MAX, enoughBytes] as const))
    return results.reduce((sum, { text: json }) => sum + Number((JSON.parse(json) as { bytes: number }).bytes), 0)
  }

  async #containers(signal: AbortSignal): Promise<readonly { readonly containerId: string; readonly sandboxId: SandboxId; readonly running: boolean }[]> {
    try {
      await this.#negotiated(signal)
      const found = await listContainers(this.#client, [`${LABEL_DATA_DIR}=${this.#options.dataDirId}`, LABEL_SANDBOX], signal)
      return found.map((entry) => ({ containerId: text(entry, 'Id'), sandboxId: asId<SandboxId>(textMap(entry, 'Labels')[LABEL_SANDBOX] ?? ''), running: text(entry, 'State') === 'running' }))
    } catch (error) {
      throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine could not list its containers.')
    }
  }

  async #removed(containerId: string): Promise<void> {
    const { clock } = this.#options
    try {
      await removeContainer(this.#client, containerId, { deadlineMs: REMOVE_DEADLINE_MS, delay: (ms) => clock.delay(ms), nowMs: () => clock.monotonicMs() })
    } catch (error) {
      throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine could not remove a container that was left behind.')
    }
  }

  async #negotiated(signal: AbortSignal): Promise<EngineVersion> {
    // Shared by all callers, so it has a deadline of its own and not one caller's signal.
    this.#engine ??= negotiate(this.#client, AbortSignal.timeout(DISCOVERY_DEADLINE_MS)).catch((error: unknown) => {
      this.#engine = undefined // I3
      throw error
    })
    try {
      return await abortable(this.#engine, signal)
    } catch (error) {
      throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine can not be used.')
    }
  }

  async #known(signal: AbortSignal): Promise<Environment> {
    this.#environment ??= this.#discover(AbortSignal.timeout(DISCOVERY_DEADLINE_MS)).catch((error: unknown) => {
      this.#environment = undefined // I3
      throw error
    })
    return await abortable(this.#environment, signal)
  }

  async #discover(signal: AbortSignal): Promise<Environment> {
    const engine = await this.#negotiated(signal)
    const agent = await readAgent(this.#options.agentPath)
    try {
      const info = await readEngineInfo(this.#client, engine, { runtime: this.#runtime, ownSeccomp: this.#options.seccompProfile !== undefined }, signal)
      const scratch = await loadScratchImage(this.#client, engine, signal)
      return { engine, info, scratch, proof: await decideDelivery(this.#context, agent, scratch, signal) }
    } catch (error) {
      throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine can not be used.')
    }
  }

  #forget(): void {
    this.#engine = undefined
    this.#environment = undefined
  }
}

/** Stops waiting when the signal aborts; the work itself goes on for whoever else waits. */
async function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted()
  let onAbort: () => void = () => undefined
  const aborted = new Promise<never>((_resolve, reject) => {
    onAbort = () => {
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
  })
  try {
    return await Promise.race([work, aborted])
  } finally {
    signal.removeEventListener('abort', onAbort)
  }
}

/** gVisor keeps what a guest writes in a memory file of its own by default; the engine's layer stays empty. */
function keepsFilesOnHost(runtime: string): boolean {
  return !/^runsc/.test(runtime)
}

function isolationOf(runtime: string): IsolationClass {
  if (/^runsc/.test(runtime)) return 'kernel'
  if (/^kata/.test(runtime)) return 'hardware'
  return 'process'
}

function unusable(error: unknown, version: string | null, socketPath: string): ProbeReport {
  const known = error instanceof FaasError ? error : undefined
  const cause = known?.cause instanceof Error ? known.cause : error
  const evidence = cause instanceof Error ? cause.message : String(cause)
  const tried = known?.details?.['tried']
  return {
    usable: false,
    reason: known?.message ?? 'The Docker Engine can not be used.',
    hint: known?.hint ?? 'Start a Docker Engine and give this process access to its socket.',
    version,
    vulnerabilities: [],
    facts: [{ name: 'engine', ok: false, evidence: `${socketPath}: ${evidence}` }, ...(Array.isArray(tried) ? tried.map((entry) => ({ name: 'tried', ok: false, evidence: String(entry) })) : [])],
  }
}

function createError(error: unknown): unknown {
  if (isEngineStatus(error, 404) && /no such image/i.test(error.message)) {
    return new FaasError('image/not-found', { message: 'The Docker Engine no longer has the image of the sandbox.', cause: error })
  }
  if (error instanceof EngineError) return toDriverError(error, 'sandbox/create-failed', 'The Docker Engine could not make the sandbox.')
  if (error instanceof FaasError && error.code.startsWith('agent/')) {
    return new FaasError('sandbox/create-failed', { message: 'The guest agent of the new sandbox did not answer.', cause: error })
  }
  if (error instanceof FaasError) return error
  return new FaasError('sandbox/create-failed', { message: 'The sandbox could not be made.', cause: error })
}
