/**
 * Decides, by trying, how the agent gets into this engine's containers and how it is spoken to.
 *
 * Best first: a read-only bind of a host directory and the agent's own socket, reached through the container's first
 * process (measured: a command costs 0.75 ms that way and 0.95 ms through attach, and carries twice the bytes a second).
 * Where the engine is another machine, or its runtime keeps sockets to itself (gVisor), the agent speaks through attach;
 * where it can not see our files, the agent comes in a volume that is filled once.
 */
import { Cleanup, FaasError, Stopwatch, type ImageDigest, type SandboxSpec, asId, type SandboxId, MIB } from '@faas-platform/core'
import tar from 'tar-stream'
import type { Readable } from 'node:stream'
import { prepareAgentDir, type AgentBinary } from './agent-dir.js'
import { startContainerWithAgent } from './container-agent.js'
import { AGENT_DIR, containerBody, containerName, LABEL_DATA_DIR, type AgentDelivery } from './container-config.js'
import { createContainer, removeContainer } from './engine-calls.js'
import { segment } from './engine-client.js'
import { isEngineStatus } from './engine-error.js'
import { list, shape, text } from './engine-shape.js'
import { hasOwnNetwork } from './host-view.js'
import type { DriverContext } from './driver-context.js'

const DEADLINE_MS = 30_000
/** A way that does not work must not hold up the next one; a container starts in a tenth of a second. */
const PROBE_CONNECT_DEADLINE_MS = 4_000

/** What a probe container proved. */
export interface DeliveryProof {
  readonly delivery: AgentDelivery
  /** `none` without the engine's network code: half the start time. Only where its isolation was seen. */
  readonly bareNetwork: boolean
  readonly host: boolean
  readonly evidence: string
  /** Why the better ways were not taken. */
  readonly rejected: readonly string[]
}

export async function decideDelivery(context: DriverContext, agent: AgentBinary, scratch: ImageDigest, signal: AbortSignal): Promise<DeliveryProof> {
  const rejected: string[] = []
  const hostDir = await prepareAgentDir(context.agentParentDir, agent)
  const bind = { kind: 'bind', hostDir } as const
  type Candidate = () => Promise<{ readonly delivery: AgentDelivery; readonly bareNetwork: boolean }>
  const sockets: readonly Candidate[] = [
    () => Promise.resolve({ delivery: { source: bind, transport: 'socket' }, bareNetwork: true }),
    () => Promise.resolve({ delivery: { source: bind, transport: 'socket' }, bareNetwork: false }),
  ]
  const attach: Candidate = () => Promise.resolve({ delivery: { source: bind, transport: 'attach' }, bareNetwork: false })
  const candidates: readonly Candidate[] = [
    ...(context.agentDelivery === undefined && !keepsSocketsToItself(context.runtime) ? sockets : []),
    ...(context.agentDelivery === 'volume' ? [] : [attach]),
    async () => ({ delivery: { source: { kind: 'volume', name: await fillVolume(context, agent, scratch) }, transport: 'attach' }, bareNetwork: false }),
  ]
  let last: unknown
  for (const candidate of candidates) {
    signal.throwIfAborted()
    const { delivery, bareNetwork } = await candidate()
    try {
      return { delivery, bareNetwork, rejected, ...(await tryDelivery(context, delivery, bareNetwork, scratch, signal)) }
    } catch (error) {
      signal.throwIfAborted()
      last = error
      rejected.push(`${delivery.source.kind} with ${delivery.transport}${bareNetwork ? ', bare network' : ''}: ${describe(error)}`)
    }
  }
  throw new FaasError('runtime/unavailable', {
    message: 'The Docker Engine answers, but no container with the guest agent could be started.',
    details: { tried: rejected },
    cause: last,
  })
}

/** Their guests' files and sockets live in a kernel of their own; trying would only cost time. */
function keepsSocketsToItself(runtime: string): boolean {
  return /^(runsc|kata)/.test(runtime)
}

/** Starts a container that holds nothing but the agent, greets it, and takes it away. */
async function tryDelivery(context: DriverContext, delivery: AgentDelivery, bareNetwork: boolean, scratch: ImageDigest, signal: AbortSignal): Promise<{ readonly host: boolean; readonly evidence: string }> {
  const { client, clock, dataDirId } = context
  const cleanup = new Cleanup()
  const watch = new Stopwatch(clock)
  const startedMs = clock.monotonicMs()
  try {
    const spec = probeSpec(context.ids.uuid(), scratch)
    const body = containerBody(spec, { dataDirId, apiVersion: context.apiVersion(), runtime: context.runtime, seccompProfile: context.seccompProfile, delivery, network: null, bareNetwork })
    const { agent, pid, host } = await startContainerWithAgent({
      client, name: containerName(dataDirId, spec.id), body, delivery, look: context.agentDelivery === undefined, connectDeadlineMs: PROBE_CONNECT_DEADLINE_MS, clock, watch, cleanup, signal,
    })
    await agent.ping()
    if (delivery.transport === 'socket' && host === null) throw new FaasError('runtime/unavailable', { message: 'the container is no process of this host' })
    if (bareNetwork && !(await hasOwnNetwork(pid))) throw new FaasError('network/unavailable', { message: 'the container shares the network of the host' })
    return { host: host !== null, evidence: `agent ${agent.info.version} answered after ${Math.round(clock.monotonicMs() - startedMs)} ms` }
  } finally {
    await cleanup.run()
  }
}

/** A named volume with the agent in it, filled through a container that is never started. Filled anew by each process: a killed one may have left half of it. */
async function fillVolume(context: DriverContext, agent: AgentBinary, scratch: ImageDigest): Promise<string> {
  const { client, clock, dataDirId } = context
  const name = `faas-${dataDirId}-agent-${agent.version}`
  const helper = containerName(dataDirId, `fill-${context.ids.uuid()}`)
  const removal = { deadlineMs: DEADLINE_MS, delay: (ms: number) => clock.delay(ms), nowMs: () => clock.monotonicMs() }
  const labels = { [LABEL_DATA_DIR]: dataDirId }
  await client.json({ method: 'POST', path: '/volumes/create', json: { Name: name, Driver: 'local', Labels: labels } })
  try {
    const mount = { Type: 'volume', Source: name, Target: AGENT_DIR, VolumeOptions: { NoCopy: true } }
    const id = await createContainer(client, helper, { Image: scratch, Entrypoint: ['/none'], Labels: labels, HostConfig: { NetworkMode: 'none', Mounts: [mount] } })
    const pack = tar.pack()
    pack.entry({ name: 'run', type: 'directory', mode: 0o755 })
    pack.entry({ name: 'agent', mode: 0o755 }, agent.bytes)
    pack.finalize()
    await client.json({ method: 'PUT', path: `/containers/${segment(id)}/archive`, query: { path: AGENT_DIR }, headers: { 'Content-Type': 'application/x-tar' }, body: pack as unknown as Readable, deadlineMs: DEADLINE_MS })
  } catch (error) {
    await removeContainer(client, helper, removal)
    await client.json({ method: 'DELETE', path: `/volumes/${segment(name)}`, query: { force: true } })
    throw error
  }
  await removeContainer(client, helper, removal)
  return name
}

function probeSpec(uuid: string, scratch: ImageDigest): SandboxSpec {
  return {
    id: asId<SandboxId>(`probe-${uuid}`),
    image: { digest: scratch, reference: 'scratch', config: { env: {}, entrypoint: [], cmd: [], workingDir: '/', user: '', labels: {} }, sizeBytes: 0, standIn: false },
    limits: { memoryBytes: 64 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: MIB },
    network: { mode: 'none', allowCidrs: [] },
    hostname: 'probe',
    labels: {},
  }
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause instanceof Error ? ` (${error.cause.message})` : ''
  return error.message + cause
}

/** Takes away the volumes that this data directory's agents were delivered in; one that containers still use stays. */
export async function removeAgentVolumes(context: DriverContext, except: string | undefined): Promise<void> {
  const { client, dataDirId } = context
  const filters = JSON.stringify({ label: [`${LABEL_DATA_DIR}=${dataDirId}`] })
  const answer = shape(await client.json({ path: '/volumes', query: { filters } }), 'volumes')
  for (const name of list(answer, 'Volumes').map((entry) => text(shape(entry, 'volume'), 'Name'))) {
    if (name === except) continue
    try {
      await client.json({ method: 'DELETE', path: `/volumes/${segment(name)}` })
    } catch (error) {
      if (!isEngineStatus(error, 404, 409)) throw error
    }
  }
}
