/** `client.instances`: sandboxes that live on. */
import { type Caller, DEADLINE_GRACE_MS } from './caller.js'
import type { TransportCall } from './transport.js'
import type { CallOptions, CreateInstanceOptions, ExecutionResult, InstanceExecOptions, StreamEvent } from './types.js'
import { asReplies, asReply, commandBody, defined, placementBody, toResult, uuid } from './wire.js'
import type { Instance } from './wire-types.js'

export class Instances {
  readonly #caller: Caller
  readonly #runtime: () => string
  readonly #timeoutMs: number
  constructor(caller: Caller, settings: { readonly runtime: () => string; readonly timeoutMs: number }) {
    this.#caller = caller
    this.#runtime = settings.runtime
    this.#timeoutMs = settings.timeoutMs
  }

  async create(options: CreateInstanceOptions): Promise<Instance> {
    const body = {
      image: options.image,
      ...placementBody(options, this.#runtime()),
      ...defined({
        name: options.name, labels: options.labels, ttl_ms: options.ttlMs, idle_ms: options.idleMs,
        env_vars: options.envVars === undefined ? undefined : Object.entries(options.envVars),
      }),
    }
    return asReply(await this.#caller.post('/api/v1/instances', body, options))
  }

  async list(options: CallOptions = {}): Promise<readonly Instance[]> {
    return asReplies(await this.#caller.get('/api/v1/instances', options))
  }

  /** By its id, or by that of the execution that made it. @throws FaaSApiError `instance/not-found` */
  async get(id: string, options: CallOptions = {}): Promise<Instance> {
    return asReply(await this.#caller.get(pathOf(id), options))
  }

  /** Runs a command in an instance and waits for its end. */
  async exec(id: string, command: string | readonly string[], options: InstanceExecOptions = {}): Promise<ExecutionResult> {
    const startMs = performance.now()
    const raw = await this.#caller.transport.json(this.#execCall(id, command, options))
    return toResult(raw, Math.max(1, Math.round(performance.now() - startMs)))
  }

  /** Runs a command in an instance and yields its output as it happens; leaving the loop ends the command. */
  execStream(id: string, command: string | readonly string[], options: InstanceExecOptions = {}): AsyncGenerator<StreamEvent, void, undefined> {
    return this.#caller.events({ ...this.#execCall(id, command, options), accept: 'text/event-stream' })
  }

  /** Ends its processes; the record stays. */
  async stop(id: string, options: CallOptions = {}): Promise<void> {
    await this.#caller.post(`${pathOf(id)}/stop`, {}, options)
  }

  /** Stops it and forgets it. */
  delete(id: string, options: CallOptions = {}): Promise<void> {
    return this.#caller.delete(pathOf(id), options)
  }

  #execCall(id: string, command: string | readonly string[], options: InstanceExecOptions): TransportCall {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs
    return {
      method: 'POST', path: `${pathOf(id)}/exec`,
      body: { command, timeout_ms: timeoutMs, ...commandBody(options) },
      headers: { 'idempotency-key': options.idempotencyKey ?? uuid() },
      timeoutMs: timeoutMs + DEADLINE_GRACE_MS, signal: options.signal, repeatable: true,
    }
  }
}

function pathOf(id: string): string {
  return `/api/v1/instances/${encodeURIComponent(id)}`
}
