/**
 * `GET /api/v1/containers/:id/stream`, the original's WebSocket, for what the caller owns and nothing else:
 * an instance (by its id or that of the execution that made it) or an execution.
 *
 * I1. The owner is checked before anything is attached; others' ids are as unknown as ids that never were.
 * I2. Commands of one client run one after the other; the queue is bounded.
 * I3. `exit` is the end of what the id names. The end of a command in an instance is `custom` `command_end`:
 *     the original's clients listen until `exit`.
 */
import type { ExecutionId, ExecutionResult, InstanceId } from '@faas-platform/core'
import { asId, FaasError, isFaasError } from '@faas-platform/core'
import type { InstanceView } from '@faas-platform/executor'
import type { ClientMessage as Message, ServerMessage } from '@faas-platform/protocol'
import { bodyCheck, ClientMessage, toInstanceExecRequest } from '@faas-platform/protocol'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { reach } from '../access/identity.js'
import type { GatewayContext } from '../context.js'
import { errorResponses } from '../openapi.js'
import { IdParams } from '../routes/executions.js'
import { exitMessage, messageOf } from './follow-socket.js'
import type { JsonSocket } from './json-socket.js'
import { openJsonSocket } from './json-socket.js'

const PENDING_EXECS_MAX = 16
const check = bodyCheck<Message>(ClientMessage)

export function containerRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  app.route<{ Params: IdParams }>({
    method: 'GET',
    url: '/api/v1/containers/:id/stream',
    config: { scope: 'execute' },
    schema: {
      tags: ['instances'], summary: 'Attach to an instance or execution (WebSocket)', params: IdParams,
      description: 'Text frames with one JSON object each. Client: exec, stdin, get_state, checkpoint, stop. Server: stdout, stderr, exit (of the instance, or of the execution that has none), custom (command_end, state, execution_state), error, heartbeat.',
      response: errorResponses(400, 401, 403),
    },
    handler: async () => {
      throw new FaasError('request/invalid', { message: 'This path speaks WebSocket only.', hint: 'Open it with ws:// or wss://.' })
    },
    wsHandler: async (raw, request) => {
      const socket = openJsonSocket(gateway, raw)
      if (socket !== null) await new ContainerSession(gateway, socket, request).open()
    },
  })
}

class ContainerSession {
  readonly #id: string
  #execs: Promise<void> = Promise.resolve()
  #pending = 0

  readonly #socket: JsonSocket

  constructor(private readonly gateway: GatewayContext, socket: JsonSocket, private readonly request: FastifyRequest<{ Params: IdParams }>) {
    this.#socket = socket
    this.#id = request.params.id
  }

  async open(): Promise<void> {
    // Messages that arrive while the owner is checked wait their turn.
    const waiting: string[] = []
    let ready = false
    this.#socket.onMessage((text) => (ready ? this.#receive(text) : void (waiting.length < PENDING_EXECS_MAX && waiting.push(text))))
    try {
      const instance = this.#instance()
      if (instance === null) await this.gateway.executor.get(asId<ExecutionId>(this.#id), reach(this.request.identity)) // I1
    } catch (thrown) {
      await this.#socket.error(thrown)
      this.#socket.close(1008, 'refused')
      return
    }
    ready = true
    for (const text of waiting) this.#receive(text)
    await this.#follow()
  }

  /** Output of the execution that carries the id, when there is one. */
  async #follow(): Promise<void> {
    const id = asId<ExecutionId>(this.#id)
    try {
      for await (const event of this.gateway.executor.subscribe(id, reach(this.request.identity), { signal: this.#socket.signal })) {
        await this.#socket.send(event.type === 'end' && this.#instance() !== null ? commandEnd(event.result) : messageOf(event, id)) // I3
      }
    } catch (thrown) {
      if (this.#socket.signal.aborted || isFaasError(thrown, 'execution/not-found')) return
      await this.#socket.error(thrown)
    }
  }

  #receive(text: string): void {
    this.#handle(text).catch((thrown: unknown) =>
      this.#socket.error(thrown).catch((error: unknown) => this.request.log.debug({ err: error }, 'error not sent')))
  }

  async #handle(text: string): Promise<void> {
    const message = check.check(parse(text))
    switch (message.type) {
      case 'exec':
        return this.#queueExec(message)
      case 'get_state':
        return this.#sendState()
      case 'stop':
        return this.#stop()
      case 'stdin':
        throw new FaasError('runtime/unsupported', { message: 'No process of this connection reads from standard input.', hint: 'Give the input with the command: POST /api/v1/instances/{id}/exec takes stdin.' })
      case 'checkpoint':
        throw new FaasError('runtime/unsupported', { message: 'Checkpoints are not available in this version.' })
    }
  }

  #queueExec(message: Extract<Message, { type: 'exec' }>): Promise<void> {
    if (this.#pending >= PENDING_EXECS_MAX) throw new FaasError('admission/queue-full', { message: 'Too many commands wait on this connection.' })
    this.#pending++
    // I2
    this.#execs = this.#execs.then(() => this.#exec(message)).catch((thrown: unknown) => this.#socket.error(thrown)).catch((error: unknown) => this.request.log.debug({ err: error }, 'error not sent')).finally(() => {
      this.#pending--
    })
    return this.#execs
  }

  async #exec(message: Extract<Message, { type: 'exec' }>): Promise<void> {
    if (this.#socket.signal.aborted) return
    const instance = this.#instance()
    if (instance === null) throw new FaasError('instance/not-found', { message: 'This execution has no instance to run commands in.', hint: 'Run it with mode "persistent".' })
    const wanted = toInstanceExecRequest({ command: message.command, env_vars: message.env_vars ?? null, timeout_ms: message.timeout_ms ?? null }, instance.id, this.gateway.policy)
    const id = asId<ExecutionId>(this.gateway.ids.uuid())
    const result = await this.gateway.executor.execInInstance(instance.id, wanted, {
      principal: instance.principal, id, signal: this.#socket.signal,
      onEvent: async (event) => {
        if (event.type === 'stdout' || event.type === 'stderr') await this.#socket.send(messageOf(event, id))
      },
    })
    await this.#socket.send(commandEnd(result))
  }

  /** As the original words it: upper-case status and the booleans of `docker inspect`. */
  async #sendState(): Promise<void> {
    const instance = this.#instance()
    const execution = instance === null ? await this.gateway.executor.get(asId<ExecutionId>(this.#id), reach(this.request.identity)) : null
    const running = instance === null ? execution?.state === 'running' : instance.state === 'running'
    await this.#socket.send({
      type: 'custom',
      name: 'state',
      data: {
        status: (instance === null ? dockerState(execution?.state ?? 'unknown') : dockerState(instance.state)).toUpperCase(),
        state: instance?.state ?? execution?.state,
        running,
        paused: instance?.state === 'paused',
        restarting: false,
        pid: 0,
        exit_code: execution?.result?.exitCode ?? 0,
        started_at: new Date(instance?.createdAtMs ?? execution?.startedAtMs ?? execution?.createdAtMs ?? 0).toISOString(),
        instance_id: instance?.id ?? null,
      },
    })
  }

  async #stop(): Promise<void> {
    const instance = this.#instance()
    if (instance === null) {
      // The stream of the execution itself tells the exit.
      await this.gateway.executor.cancel(asId<ExecutionId>(this.#id), reach(this.request.identity))
      return
    }
    await this.gateway.executor.stopInstance(instance.id, reach(this.request.identity))
    await this.#socket.send({ type: 'exit', code: 0, outcome: 'stopped' })
  }

  #instance(): InstanceView | null {
    try {
      return this.gateway.executor.getInstance(asId<InstanceId>(this.#id), reach(this.request.identity))
    } catch (thrown) {
      if (isFaasError(thrown, 'instance/not-found')) return null
      throw thrown
    }
  }
}

function commandEnd(result: ExecutionResult): ServerMessage {
  const { type: _type, ...data } = exitMessage(result)
  return { type: 'custom', name: 'command_end', data }
}

function dockerState(state: string): string {
  return { succeeded: 'exited', failed: 'exited', timed_out: 'exited', cancelled: 'exited', stopped: 'exited', queued: 'created', starting: 'created', creating: 'created' }[state] ?? state
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new FaasError('request/malformed-json', { message: 'The frame is not JSON.', cause })
  }
}
