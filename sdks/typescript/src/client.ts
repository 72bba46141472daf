/**
 * Client of the gateway's HTTP API. Everything the original client offered keeps its name and meaning;
 * what is new stands beside it.
 */
import { Caller, DEADLINE_GRACE_MS } from './caller.js'
import { Emitter } from './emitter.js'
import { Executions } from './executions.js'
import { Images } from './images.js'
import { Instances } from './instances.js'
import { Keys } from './keys.js'
import { md5Hex } from './md5.js'
import { ClientMetrics } from './metrics.js'
import { Transport, type TransportCall } from './transport.js'
import type {
  CallOptions, ClientConfig, ClientEvents, ClientMetricsSnapshot, CodeImages, ExecuteOptions, ExecutionResult, PlacementOptions, StreamEvent,
} from './types.js'
import { Runtime } from './types.js'
import { asReplies, asReply, defined, executeBody, placementBody, shellQuote, text, toResult, uuid } from './wire.js'
import type { Health, Pool, Prewarmed, RuntimeInfo, ServerMetrics } from './wire-types.js'

const IMAGES: Required<CodeImages> = { python: 'python:3.11-slim', javascript: 'node:20-slim', typescript: 'node:24-slim', bash: 'alpine:latest' }

/** `command` replaces the command that the helper would build. */
export type CodeOptions = Omit<ExecuteOptions, 'command'> & { readonly command?: string | readonly string[] }

export interface SubmitOptions extends ExecuteOptions {
  /** May it run again after a crash of the gateway? Default true. */
  readonly rerunnable?: boolean
}

export interface SnapshotOptions {
  readonly containerId: string
  readonly name?: string
  readonly description?: string
}

export class FaaSClient extends Emitter<ClientEvents> {
  readonly executions: Executions
  readonly instances: Instances
  readonly images: Images
  readonly keys: Keys
  readonly #caller: Caller
  readonly #metrics = new ClientMetrics()
  readonly #timeoutMs: number
  readonly #images: Required<CodeImages>
  #runtime: Runtime | `${Runtime}`
  #cacheEnabled: boolean

  constructor(config: string | ClientConfig) {
    super()
    const settings: ClientConfig = typeof config === 'string' ? { baseUrl: config } : config
    this.#runtime = settings.runtime ?? Runtime.Auto
    this.#cacheEnabled = settings.cacheEnabled ?? true
    this.#timeoutMs = settings.timeout ?? 30_000
    this.#images = { ...IMAGES, ...settings.images }
    this.#caller = new Caller(
      new Transport({
        baseUrl: settings.baseUrl,
        apiKey: settings.apiKey ?? '',
        attempts: settings.maxRetries !== undefined && settings.maxRetries > 0 ? settings.maxRetries : 3,
        fetch: settings.fetch ?? globalThis.fetch.bind(globalThis),
        onRetry: (info) => this.emit('retry', info),
      }),
      this.#timeoutMs,
    )
    this.executions = new Executions(this.#caller)
    this.instances = new Instances(this.#caller, { runtime: () => this.#runtime, timeoutMs: this.#timeoutMs })
    this.images = new Images(this.#caller)
    this.keys = new Keys(this.#caller)
  }

  useDocker(): this {
    return this.useRuntime(Runtime.Docker)
  }

  useFirecracker(): this {
    return this.useRuntime(Runtime.Firecracker)
  }

  useRuntime(runtime: Runtime | `${Runtime}`): this {
    this.#runtime = runtime
    return this
  }

  setCaching(enabled: boolean): this {
    this.#cacheEnabled = enabled
    return this
  }

  /** MD5 hex of the text; names a cache entry, protects nothing. */
  getCacheKey(content: string): string {
    return md5Hex(content)
  }

  /**
   * Runs a command and waits for its end. A guest's non-zero exit is a result.
   * @throws FaaSTimeoutError when it ran into `timeoutMs`; FaaSApiError, FaaSConnectionError
   */
  async execute(options: ExecuteOptions): Promise<ExecutionResult> {
    const startMs = performance.now()
    try {
      const raw = await this.#caller.transport.json(this.#executeCall(options))
      const elapsedMs = since(startMs)
      const result = toResult(raw, elapsedMs, options.runtime ?? this.#runtime)
      this.#metrics.count({ elapsedMs, hit: result.cacheHit, failed: false })
      this.emit('execution', { result: result.raw, elapsedMs, cacheHit: result.cacheHit })
      return result
    } catch (thrown) {
      this.#metrics.count({ elapsedMs: since(startMs), hit: false, failed: true })
      if (thrown instanceof Error) this.emit('error', thrown)
      throw thrown
    }
  }

  /** Same as `execute`; the original's documents name it. */
  executeAdvanced(options: ExecuteOptions): Promise<ExecutionResult> {
    return this.execute(options)
  }

  /** Runs a command and yields its output as it happens; leaving the loop ends the command. */
  executeStream(options: ExecuteOptions): AsyncGenerator<StreamEvent, void, undefined> {
    return this.#caller.events({ ...this.#executeCall(options), accept: 'text/event-stream' }, options.runtime ?? this.#runtime)
  }

  /** Hands a command over and returns at once; see `executions.wait`. */
  async submit(options: SubmitOptions): Promise<{ readonly requestId: string; readonly status: string }> {
    const call = this.#executeCall(options)
    const raw = asReply<Record<string, unknown>>(await this.#caller.transport.json({ ...call, body: { ...call.body, async: true, ...defined({ rerunnable: options.rerunnable }) } }))
    return { requestId: text(raw['request_id']) ?? '', status: text(raw['status']) ?? '' }
  }

  runPython(code: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode(this.#images.python, `python3 -c ${shellQuote(code)}`, options)
  }

  runJavaScript(code: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode(this.#images.javascript, `node -e ${shellQuote(code)}`, options)
  }

  /** Needs an image whose Node strips types by itself; nothing is installed at run time. */
  runTypeScript(code: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode(this.#images.typescript, `node --input-type=module-typescript -e ${shellQuote(code)}`, options)
  }

  runBash(script: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode(this.#images.bash, `sh -c ${shellQuote(script)}`, options)
  }

  /** Runs a command in a copy of a finished execution, snapshot or live instance. Gateways that can not do it yet answer 501. */
  async forkExecution(parentId: string, command: string | readonly string[], options: Partial<ExecuteOptions> = {}): Promise<ExecutionResult> {
    const startMs = performance.now()
    const raw = await this.#caller.transport.json(this.#executeCall({ ...options, command, mode: 'branched', branchFrom: parentId }))
    return toResult(raw, since(startMs))
  }

  /** Gateways that can not do it yet answer 501. */
  async createSnapshot(container: string | SnapshotOptions, name?: string, description?: string): Promise<Readonly<Record<string, unknown>>> {
    const wanted = typeof container === 'string' ? { containerId: container, name, description } : container
    return asReply(await this.#caller.post('/api/v1/snapshots', { container_id: wanted.containerId, ...defined({ name: wanted.name, description: wanted.description }) }, {}))
  }

  /** Makes `count` sandboxes of an image ready and keeps at least so many; 0 lets them go. */
  async prewarm(image: string, count = 1, options: CallOptions & PlacementOptions = {}): Promise<Prewarmed> {
    return asReply(await this.#caller.post('/api/v1/prewarm', { image, count, ...placementBody(options, this.#runtime) }, options))
  }

  /** Names of the images that have warm sandboxes. */
  async pools(options: CallOptions = {}): Promise<readonly string[]> {
    return asReplies<unknown>(await this.#caller.get('/api/v1/pools', options)).filter((name) => typeof name === 'string')
  }

  async poolsDetailed(options: CallOptions = {}): Promise<readonly Pool[]> {
    return asReplies(await this.#caller.get('/api/v1/pools/detailed', options))
  }

  /** What the gateway's probes found of every runtime. */
  async runtimes(options: CallOptions = {}): Promise<readonly RuntimeInfo[]> {
    return asReplies(await this.#caller.get('/api/v1/runtimes', options))
  }

  /** Lines of an execution's output that are not blank, until it has ended. */
  async *streamLogs(executionId: string, options: CallOptions = {}): AsyncGenerator<string, void, undefined> {
    for await (const line of this.#caller.lines(`/api/v1/logs/${encodeURIComponent(executionId)}/stream`, options)) if (line.trim() !== '') yield line
  }

  async getMetrics(options: CallOptions = {}): Promise<ServerMetrics> {
    return asReply(await this.#caller.get('/api/v1/metrics', options))
  }

  /** What this client saw of its own calls to `execute`. */
  getClientMetrics(): ClientMetricsSnapshot {
    return this.#metrics
  }

  async healthCheck(options: CallOptions = {}): Promise<Health> {
    return asReply(await this.#caller.get('/health', options))
  }

  #executeCall(options: ExecuteOptions) {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs
    const cacheKey = this.#cacheEnabled ? this.getCacheKey(`${commandText(options.command)}:${options.image ?? 'alpine:latest'}`) : undefined
    return {
      method: 'POST',
      path: '/api/v1/execute',
      body: executeBody(options, { runtime: this.#runtime, timeoutMs: this.#timeoutMs, cacheKey }),
      headers: { 'idempotency-key': options.idempotencyKey ?? uuid() },
      timeoutMs: timeoutMs + DEADLINE_GRACE_MS,
      signal: options.signal,
      repeatable: true,
    } as const satisfies TransportCall
  }

  #runCode(image: string, command: string, options: CodeOptions): Promise<ExecutionResult> {
    return this.execute({ ...options, image: options.image ?? image, command: options.command ?? command })
  }
}

function commandText(command: string | readonly string[]): string {
  return typeof command === 'string' ? command : command.join(' ')
}

function since(startMs: number): number {
  return Math.max(1, Math.round(performance.now() - startMs))
}
