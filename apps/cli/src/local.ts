/** `faas run --local`: the same executor in this process, behind the same stream of events. */
import { type Config, loadConfig } from '@faas-platform/config'
import { asId, type ExecutionEvent, FaasError, isFaasError, type PrincipalId } from '@faas-platform/core'
import { wirePolicy } from '@faas-platform/gateway'
import { type ExecuteBody, executeReply, toExecuteRequest } from '@faas-platform/protocol'
import { executionResultOf, type ExecuteOptions, executeBody, type StreamEvent } from '@faas-platform/sdk'
import type { Cli } from './context.js'
import type { LocalPlatform } from './platform.js'

const LOCAL: PrincipalId = asId('local')
/** Events that may wait for the terminal; the guest waits beyond it. */
const BACKLOG_MAX = 64

export async function* localStream(options: ExecuteOptions, cli: Cli): AsyncGenerator<StreamEvent, void, undefined> {
  // A short-lived process keeps nothing warm: its one sandbox is made on request.
  const { config } = loadConfig([], { ...cli.environment, FAAS_DISABLE_PREWARM: '1' })
  await using platform = await openHere(cli, config)
  const body = executeBody(options, { runtime: config.defaultRuntime, timeoutMs: config.defaultTimeoutMs, cacheKey: undefined })
  const request = toExecuteRequest(body as ExecuteBody, wirePolicy(config)) // the SDK's own encoder wrote it
  const queue = new Handover<ExecutionEvent>(BACKLOG_MAX)
  const running = platform.executor
    .run(request, { principal: LOCAL, signal: cli.signal, onEvent: (event) => queue.put(event) })
    .finally(() => queue.close())
  for await (const event of queue) {
    if (event.type === 'stdout' || event.type === 'stderr') yield { type: event.type, seq: event.seq, bytes: event.bytes, text: new TextDecoder().decode(event.bytes) }
    if (event.type === 'state') yield { type: 'state', seq: event.seq, state: event.state }
    if (event.type === 'end') yield { type: 'end', seq: event.seq, result: executionResultOf(executeReply(event.result)) }
  }
  await running
}

async function openHere(cli: Cli, config: Config): Promise<LocalPlatform> {
  try {
    return await cli.platform.open(config)
  } catch (thrown) {
    if (!isFaasError(thrown, 'store/locked')) throw thrown
    throw new FaasError('store/locked', {
      message: `A gateway uses ${config.dataDir}.`, hint: 'Run it there, without --local, or name another directory with FAAS_DATA_DIR.', cause: thrown,
    })
  }
}

/** A bounded queue between one writer that can wait and one reader. */
class Handover<T> implements AsyncIterable<T> {
  readonly #items: T[] = []
  #closed = false
  #wake: (() => void) | undefined
  #drained: (() => void) | undefined

  constructor(private readonly capacity: number) {}

  put(item: T): void | Promise<void> {
    this.#items.push(item)
    this.#wake?.()
    if (this.#items.length < this.capacity) return
    return new Promise((resolve) => (this.#drained = resolve))
  }

  close(): void {
    this.#closed = true
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (;;) {
      const item = this.#items.shift()
      if (item !== undefined) {
        if (this.#items.length < this.capacity) this.#drained?.()
        yield item
      } else if (this.#closed) return
      else await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }
}
