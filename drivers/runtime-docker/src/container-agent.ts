/** From a container's description to a connected agent, with the time of each phase. Used by sandboxes and by probes. */
import { AgentClient } from '@faas-platform/agent-client'
import { FaasError, type Cleanup, type Clock, type Stopwatch } from '@faas-platform/core'
import { connectAgentSocket } from './agent-socket.js'
import { AttachStream } from './attach-stream.js'
import type { AgentDelivery } from './container-config.js'
import { createContainer, inspectContainer, removeContainer, startContainer } from './engine-calls.js'
import { segment, type EngineClient } from './engine-client.js'
import { flag, number, sub, text, type Shape } from './engine-shape.js'
import { HostView } from './host-view.js'

const CONNECT_DEADLINE_MS = 10_000
const ATTACH_DEADLINE_MS = 10_000
const REMOVE_DEADLINE_MS = 30_000

export interface StartedContainer {
  readonly id: string
  readonly inspect: Shape
  readonly pid: number
  readonly agent: AgentClient
  readonly attach: AttachStream | null
  readonly host: HostView | null
}

export interface StartOptions {
  readonly client: EngineClient
  readonly name: string
  readonly body: unknown
  readonly delivery: AgentDelivery
  /** False: behave as if the engine were another machine. */
  readonly look: boolean
  /** For the agent to answer; absent: long enough for a loaded engine. */
  readonly connectDeadlineMs?: number
  readonly clock: Clock
  readonly watch: Stopwatch
  /** Gets the steps that undo what was done so far. */
  readonly cleanup: Cleanup
  readonly signal: AbortSignal
}

/**
 * Creates, starts, connects. The engine's own calls are not aborted half-way: a container that comes into being after
 * its removal would be nobody's. So an abort waits for the call that is under way, and then everything is undone.
 */
export async function startContainerWithAgent(options: StartOptions): Promise<StartedContainer> {
  const { client, name, body, delivery, clock, watch, cleanup, signal, connectDeadlineMs = CONNECT_DEADLINE_MS } = options
  signal.throwIfAborted()
  // By name, and armed before: a call that failed on our side may have succeeded on the engine's.
  cleanup.add(() => removeContainer(client, name, { deadlineMs: REMOVE_DEADLINE_MS, delay: (ms) => clock.delay(ms), nowMs: () => clock.monotonicMs() }))
  const id = await createContainer(client, name, body)
  watch.lap('engine_create')
  signal.throwIfAborted()
  let attach: AttachStream | null = null
  if (delivery.transport === 'attach') {
    const query = { stream: true, stdin: true, stdout: true, stderr: true }
    attach = new AttachStream(await client.hijack({ method: 'POST', path: `/containers/${segment(id)}/attach`, query, signal, deadlineMs: ATTACH_DEADLINE_MS }))
    const opened = attach
    opened.on('error', () => undefined) // whoever reads it is told by its end; an error without a reader must not end the process
    cleanup.add(() => opened.destroy())
    watch.lap('engine_attach')
  }
  await startContainer(client, id)
  watch.lap('engine_start')
  signal.throwIfAborted()
  const inspect = await inspectContainer(client, id)
  const pid = runningPid(inspect, attach)
  watch.lap('engine_inspect')
  const socketOptions = { clock, deadlineMs: connectDeadlineMs, signal }
  const agent = await AgentClient.connect(attach ?? (await connectAgentSocket(pid, socketOptions)), { timeoutMs: connectDeadlineMs, signal }).catch(async (error: unknown) => {
    throw await startFailure(error, options.client, id, attach)
  })
  cleanup.add(() => agent.close())
  const host = options.look ? await HostView.of(inspect, pid) : null
  watch.lap('agent_connect')
  return { id, inspect, pid, agent, attach, host }
}

function runningPid(inspect: Shape, attach: AttachStream | null): number {
  const state = sub(inspect, 'State')
  if (flag(state, 'Running')) return number(state, 'Pid')
  throw new FaasError('sandbox/create-failed', {
    message: 'The guest agent ended as soon as it was started.',
    cause: { exitCode: number(state, 'ExitCode'), error: text(state, 'Error'), oomKilled: flag(state, 'OOMKilled'), notes: attach?.notes ?? '' },
  })
}

/** When the connection failed because the container is gone already, that is the better reason. */
async function startFailure(error: unknown, client: EngineClient, id: string, attach: AttachStream | null): Promise<unknown> {
  if (!(error instanceof FaasError) || (error.code !== 'agent/disconnected' && error.code !== 'sandbox/create-timeout')) return error
  try {
    runningPid(await inspectContainer(client, id), attach)
  } catch (reason) {
    return reason
  }
  return error
}
