/**
 * Client of the gateway's HTTP API. Everything the original client offered keeps its name and meaning;
 * what is new stands beside it.
 */
import { Emitter } from './emitter.js'
import { FaaSError, FaaSResponseError, isRecord } from './errors.js'
import { md5Hex } from './md5.js'
import { ClientMetrics } from './metrics.js'
import { lines, serverSentEvents } from './sse.js'
import { Transport } from './transport.js'
import type { CallOptions, ClientConfig, ClientEvents, ClientMetricsSnapshot, ExecuteOptions, ExecutionResult, PullProgress, StreamEvent } from './types.js'
import { Runtime } from './types.js'
import { bytesFromBase64, executeBody, shellQuote, text, toResult } from './wire.js'

/** Head start of the client's own deadline over the command's, so that the gateway's 504 arrives and not a guess. */
const DEADLINE_GRACE_MS = 15_000

export type CodeOptions = Omit<ExecuteOptions, 'command'> & { readonly command?: string | readonly string[] }

export interface ExecutionQuery extends CallOptions {
  readonly state?: string
  readonly limit?: number
  readonly cursor?: string
}

export class FaaSClient extends Emitter<ClientEvents> {
  readonly #transport: Transport
  readonly #metrics = new ClientMetrics()
  readonly #timeoutMs: number
  #runtime: Runtime | `${Runtime}`
  #cacheEnabled: boolean

  constructor(config: string | ClientConfig) {
    super()
    const settings: ClientConfig = typeof config === 'string' ? { baseUrl: config } : config
    this.#runtime = settings.runtime ?? Runtime.Auto
    this.#cacheEnabled = settings.cacheEnabled ?? true
    this.#timeoutMs = settings.timeout ?? 30_000
    this.#transport = new Transport({
      baseUrl: settings.baseUrl,
      apiKey: settings.apiKey ?? '',
      attempts: settings.maxRetries !== undefined && settings.maxRetries > 0 ? settings.maxRetries : 3,
      fetch: settings.fetch ?? globalThis.fetch.bind(globalThis),
      onRetry: (info) => this.emit('retry', info),
    })
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
      const raw = await this.#transport.json({ ...this.#executeCall(options), path: '/api/v1/execute' })
      const elapsedMs = Math.max(1, Math.round(performance.now() - startMs))
      const result = toResult(raw, elapsedMs, options.runtime ?? this.#runtime)
      this.#count(elapsedMs, result.cacheHit, false)
      this.emit('execution', { result: result.raw, elapsedMs, cacheHit: result.cacheHit })
      return result
    } catch (thrown) {
      this.#count(performance.now() - startMs, false, true)
      throw thrown
    }
  }

  /** Same as `execute`; the original's documents name it. */
  executeAdvanced(options: ExecuteOptions): Promise<ExecutionResult> {
    return this.execute(options)
  }

  /** Runs a command and yields its output as it happens; leaving the loop ends the command. */
  async *executeStream(options: ExecuteOptions): AsyncGenerator<StreamEvent, void, undefined> {
    const call = this.#executeCall(options)
    yield* this.#events({ ...call, path: '/api/v1/execute', accept: 'text/event-stream' }, options.runtime ?? this.#runtime)
  }

  /** Hands a command over and returns at once; see `executions.wait`. */
  async submit(options: ExecuteOptions): Promise<{ readonly requestId: string; readonly status: string }> {
    const call = this.#executeCall(options)
    const raw = asRecord(await this.#transport.json({ ...call, body: { ...call.body, async: true }, path: '/api/v1/execute' }))
    return { requestId: text(raw['request_id']) ?? '', status: text(raw['status']) ?? '' }
  }

  readonly executions = {
    get: async (id: string, options: CallOptions = {}): Promise<Readonly<Record<string, unknown>>> =>
      asRecord(await this.#get(`/api/v1/executions/${encodeURIComponent(id)}`, options)),
    list: async (query: ExecutionQuery = {}): Promise<Readonly<Record<string, unknown>>> =>
      asRecord(await this.#get(`/api/v1/executions${queryString({ state: query.state, limit: query.limit, cursor: query.cursor })}`, query)),
    cancel: async (id: string, options: CallOptions = {}): Promise<void> => {
      await this.#post(`/api/v1/executions/${encodeURIComponent(id)}/cancel`, {}, options)
    },
    /** What the execution has written so far, both streams in order of arrival. */
    logs: async (id: string, options: CallOptions = {}): Promise<string> => {
      const { response, close } = await this.#transport.open({
        method: 'GET', path: `/api/v1/executions/${encodeURIComponent(id)}/logs`, accept: 'text/plain', timeoutMs: options.timeoutMs ?? this.#timeoutMs,
        signal: options.signal, repeatable: true,
      })
      try {
        return await response.text()
      } finally {
        close()
      }
    },
    /** Output of a running or finished execution from event `fromSeq` on, until its end. */
    stream: (id: string, options: CallOptions & { readonly fromSeq?: number } = {}): AsyncGenerator<StreamEvent, void, undefined> =>
      this.#follow(id, options),
    /** Waits for the end of an execution. */
    wait: async (id: string, options: CallOptions = {}): Promise<ExecutionResult> => {
      for await (const event of this.#follow(id, options)) if (event.type === 'end') return event.result
      throw new FaaSResponseError('The stream of the execution ended without its result.', { code: 'client/invalid-response', status: 200 })
    },
  }

  runPython(code: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode('python:3.11-slim', `python3 -c ${shellQuote(code)}`, options)
  }

  runJavaScript(code: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode('node:20-slim', `node -e ${shellQuote(code)}`, options)
  }

  /** Needs an image whose Node strips types by itself (24 and newer); nothing is installed at run time. */
  runTypeScript(code: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode('node:24-slim', `node --input-type=module-typescript -e ${shellQuote(code)}`, options)
  }

  runBash(script: string, options: CodeOptions = {}): Promise<ExecutionResult> {
    return this.#runCode('alpine:latest', `sh -c ${shellQuote(script)}`, options)
  }

  /** Runs a command in a copy of a finished execution, snapshot or live instance. */
  async forkExecution(parentId: string, command: string | readonly string[], options: Partial<ExecuteOptions> = {}): Promise<ExecutionResult> {
    const startMs = performance.now()
    const raw = await this.#transport.json({
      ...this.#executeCall({ ...options, command, mode: 'branched', branchFrom: parentId }),
      path: '/api/v1/execute',
    })
    return toResult(raw, Math.max(1, Math.round(performance.now() - startMs)), undefined)
  }

  async createSnapshot(
    container: string | { readonly containerId: string; readonly name?: string; readonly description?: string },
    name?: string,
    description?: string,
  ): Promise<Readonly<Record<string, unknown>>> {
    const body =
      typeof container === 'string'
        ? { container_id: container, name, description }
        : { container_id: container.containerId, name: container.name, description: container.description }
    return asRecord(await this.#post('/api/v1/snapshots', body, {}))
  }

  readonly instances = {
    create: async (options: { readonly image: string; readonly name?: string; readonly cpuCores?: number; readonly memoryMb?: number } & CallOptions): Promise<Readonly<Record<string, unknown>>> =>
      asRecord(
        await this.#post('/api/v1/instances', { image: options.image, name: options.name, cpu_cores: options.cpuCores, memory_mb: options.memoryMb, runtime: this.#runtime }, options),
      ),
    list: async (options: CallOptions = {}): Promise<readonly unknown[]> => asArray(await this.#get('/api/v1/instances', options)),
    get: async (id: string, options: CallOptions = {}): Promise<Readonly<Record<string, unknown>>> =>
      asRecord(await this.#get(`/api/v1/instances/${encodeURIComponent(id)}`, options)),
    exec: async (id: string, command: string | readonly string[], options: CallOptions & { readonly envVars?: Readonly<Record<string, string>> } = {}): Promise<ExecutionResult> => {
      const body = { command, env_vars: options.envVars === undefined ? undefined : Object.entries(options.envVars), timeout_ms: options.timeoutMs }
      return toResult(await this.#post(`/api/v1/instances/${encodeURIComponent(id)}/exec`, body, options), 1, undefined)
    },
    stop: async (id: string, options: CallOptions = {}): Promise<void> => {
      await this.#post(`/api/v1/instances/${encodeURIComponent(id)}/stop`, {}, options)
    },
    delete: async (id: string, options: CallOptions = {}): Promise<void> => {
      await this.#transport.json({ method: 'DELETE', path: `/api/v1/instances/${encodeURIComponent(id)}`, timeoutMs: this.#timeoutMs, repeatable: true, signal: options.signal })
    },
  }

  readonly images = {
    list: async (options: CallOptions = {}): Promise<readonly unknown[]> => asArray(await this.#get('/api/v1/images', options)),
    /** Pulls from the image's registry. `onProgress` gets every layer's bytes as they come. */
    pull: async (reference: string, options: CallOptions & { readonly store?: string; readonly onProgress?: (progress: PullProgress) => void } = {}): Promise<Readonly<Record<string, unknown>>> => {
      const { response, close } = await this.#transport.open({
        method: 'POST', path: '/api/v1/images/pull', body: { reference, store: options.store }, accept: 'text/event-stream',
        timeoutMs: options.timeoutMs ?? Number.POSITIVE_INFINITY, signal: options.signal, repeatable: true,
      })
      try {
        for await (const message of serverSentEvents(bodyOf(response))) {
          const body = parseEvent(message.event, message.data)
          if (message.event === 'progress') options.onProgress?.(toPullProgress(body))
          if (message.event === 'end') return body
        }
      } finally {
        close()
      }
      throw new FaaSResponseError('The pull ended without its result.', { code: 'client/invalid-response', status: 200 })
    },
    /** Imports an OCI layout or a `docker save` archive that lies on the gateway's host. */
    import: async (path: string, options: CallOptions & { readonly reference?: string; readonly store?: string } = {}): Promise<readonly unknown[]> =>
      asArray(await this.#post('/api/v1/images/import', { path, reference: options.reference, store: options.store }, options)),
    /** Makes an image of a directory on the gateway's host. */
    build: async (path: string, reference: string, options: CallOptions & { readonly store?: string; readonly command?: readonly string[]; readonly env?: Readonly<Record<string, string>>; readonly workingDir?: string; readonly user?: string } = {}): Promise<Readonly<Record<string, unknown>>> =>
      asRecord(
        await this.#post('/api/v1/images/build', { path, reference, store: options.store, command: options.command, env: options.env, working_dir: options.workingDir, user: options.user }, options),
      ),
    remove: async (reference: string, options: CallOptions & { readonly store?: string } = {}): Promise<void> => {
      await this.#transport.json({
        method: 'DELETE', path: `/api/v1/images${queryString({ reference, store: options.store })}`, timeoutMs: this.#timeoutMs, repeatable: false, signal: options.signal,
      })
    },
  }

  /** Makes `count` sandboxes of an image ready and keeps at least so many. */
  async prewarm(image: string, count = 1, options: CallOptions = {}): Promise<void> {
    await this.#post('/api/v1/prewarm', { image, count, runtime: this.#runtime }, options)
  }

  async pools(options: CallOptions = {}): Promise<readonly string[]> {
    return asArray(await this.#get('/api/v1/pools', options)).filter((name) => typeof name === 'string')
  }

  /** Lines of an execution's output, until it has ended. */
  async *streamLogs(executionId: string, options: CallOptions = {}): AsyncGenerator<string, void, undefined> {
    const { response, close } = await this.#transport.open({
      method: 'GET', path: `/api/v1/logs/${encodeURIComponent(executionId)}/stream`, accept: 'text/event-stream',
      timeoutMs: options.timeoutMs ?? Number.POSITIVE_INFINITY, signal: options.signal, repeatable: true,
    })
    try {
      for await (const line of lines(bodyOf(response))) {
        const content = line.startsWith('data:') ? line.slice(line[5] === ' ' ? 6 : 5) : line
        if (content.trim() !== '' && !/^(event|id|retry):/.test(line) && !line.startsWith(':')) yield content
      }
    } finally {
      close()
    }
  }

  async getMetrics(options: CallOptions = {}): Promise<Readonly<Record<string, unknown>>> {
    return asRecord(await this.#get('/api/v1/metrics', options))
  }

  getClientMetrics(): ClientMetricsSnapshot {
    return this.#metrics
  }

  async healthCheck(options: CallOptions = {}): Promise<Readonly<Record<string, unknown>>> {
    return asRecord(await this.#get('/health', options))
  }

  #executeCall(options: ExecuteOptions) {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs
    const cacheKey = this.#cacheEnabled ? this.getCacheKey(`${commandText(options.command)}:${options.image ?? 'alpine:latest'}`) : undefined
    return {
      method: 'POST' as const,
      body: executeBody(options, { runtime: this.#runtime, timeoutMs: this.#timeoutMs, cacheKey }),
      headers: { 'idempotency-key': options.idempotencyKey ?? globalThis.crypto.randomUUID() },
      timeoutMs: timeoutMs + DEADLINE_GRACE_MS,
      signal: options.signal,
      repeatable: true,
    }
  }

  #runCode(image: string, command: string, options: CodeOptions): Promise<ExecutionResult> {
    return this.execute({ ...options, image: options.image ?? image, command: options.command ?? command })
  }

  async *#follow(id: string, options: CallOptions & { readonly fromSeq?: number }): AsyncGenerator<StreamEvent, void, undefined> {
    yield* this.#events(
      {
        method: 'GET', path: `/api/v1/executions/${encodeURIComponent(id)}/stream${queryString({ from_seq: options.fromSeq })}`, accept: 'text/event-stream',
        timeoutMs: options.timeoutMs ?? Number.POSITIVE_INFINITY, signal: options.signal, repeatable: true,
      },
      undefined,
    )
  }

  async *#events(call: Parameters<Transport['open']>[0], asked: string | undefined): AsyncGenerator<StreamEvent, void, undefined> {
    const { response, close } = await this.#transport.open(call)
    try {
      for await (const message of serverSentEvents(bodyOf(response))) {
        const event = toStreamEvent(message.event, message.data, asked)
        if (event === undefined) continue
        yield event
        if (event.type === 'end') return
      }
    } finally {
      close()
    }
  }

  #get(path: string, options: CallOptions): Promise<unknown> {
    return this.#transport.json({ method: 'GET', path, timeoutMs: options.timeoutMs ?? this.#timeoutMs, signal: options.signal, repeatable: true })
  }

  #post(path: string, body: unknown, options: CallOptions): Promise<unknown> {
    return this.#transport.json({ method: 'POST', path, body, timeoutMs: (options.timeoutMs ?? this.#timeoutMs) + DEADLINE_GRACE_MS, signal: options.signal, repeatable: false })
  }

  #count(elapsedMs: number, hit: boolean, failed: boolean): void {
    this.#metrics.totalRequests++
    this.#metrics.totalLatencyMs += elapsedMs
    if (hit) this.#metrics.cacheHits++
    if (failed) this.#metrics.errors++
  }
}

/** Runs code once and returns what it printed. Unknown languages are run as a command. */
export async function run(code: string, language = 'python', baseUrl = 'http://localhost:8080'): Promise<string> {
  const client = new FaaSClient(baseUrl)
  const result = await runIn(client, code, language)
  if (result.exitCode !== undefined && result.exitCode !== 0) {
    throw new FaaSError(result.error ?? `The code ended with exit code ${result.exitCode}.`, {
      code: 'guest/failed', status: 200, requestId: result.requestId, details: { exit_code: result.exitCode, stdout: result.stdout, stderr: result.stderr },
    })
  }
  return result.output ?? ''
}

function runIn(client: FaaSClient, code: string, language: string): Promise<ExecutionResult> {
  switch (language) {
    case 'python':
      return client.runPython(code)
    case 'javascript':
    case 'js':
    case 'node':
      return client.runJavaScript(code)
    case 'typescript':
      return client.runTypeScript(code)
    case 'bash':
    case 'shell':
    case 'sh':
      return client.runBash(code)
    default:
      return client.execute({ command: code })
  }
}

/** @throws FaaSError what an `error` event says */
function parseEvent(type: string, data: string): Readonly<Record<string, unknown>> {
  let body: unknown
  try {
    body = JSON.parse(data)
  } catch (cause) {
    throw new FaaSResponseError('The stream holds an event that is not JSON.', { code: 'client/invalid-response', status: 200, cause })
  }
  const record = asRecord(body)
  if (type !== 'error') return record
  const error = isRecord(record['error']) ? record['error'] : {}
  throw new FaaSError(text(error['message']) ?? 'The stream ended with an error.', {
    code: text(error['code']) ?? 'internal/bug', status: 200, hint: text(error['hint']), requestId: text(record['request_id']),
    details: isRecord(error['details']) ? error['details'] : undefined,
  })
}

function toPullProgress(body: Readonly<Record<string, unknown>>): PullProgress {
  const bytes = (key: string): number | null => (typeof body[key] === 'number' ? body[key] : null)
  return { layer: text(body['layer']) ?? '', phase: text(body['phase']) ?? '', currentBytes: bytes('current_bytes') ?? 0, totalBytes: bytes('total_bytes') }
}

function toStreamEvent(type: string, data: string, asked: string | undefined): StreamEvent | undefined {
  const body = parseEvent(type, data)
  const seq = typeof body['seq'] === 'number' ? body['seq'] : 0
  if (type === 'state') return { type, seq, state: text(body['state']) ?? '' }
  if (type === 'stdout' || type === 'stderr') {
    const encoded = text(body['data_base64'])
    const bytes = encoded === undefined ? new TextEncoder().encode(text(body['data']) ?? '') : bytesFromBase64(encoded)
    return { type, seq, bytes, text: text(body['data']) ?? new TextDecoder().decode(bytes) }
  }
  if (type === 'end') return { type, seq, result: toResult(body['result'], 1, asked) }
  return undefined
}

function commandText(command: string | readonly string[]): string {
  return typeof command === 'string' ? command : command.join(' ')
}

function queryString(values: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams()
  for (const [key, value] of Object.entries(values)) if (value !== undefined) query.set(key, String(value))
  return query.size === 0 ? '' : `?${query}`
}

function bodyOf(response: Response): ReadableStream<Uint8Array> {
  if (response.body === null) throw new FaaSResponseError('The gateway answered without a body.', { code: 'client/invalid-response', status: response.status })
  return response.body
}

function asRecord(value: unknown): Readonly<Record<string, unknown>> {
  if (isRecord(value)) return value
  throw new FaaSResponseError('The gateway answered without an object.', { code: 'client/invalid-response', status: 200 })
}

function asArray(value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw new FaaSResponseError('The gateway answered without a list.', { code: 'client/invalid-response', status: 200 })
}

export default FaaSClient
