/** `client.executions`: what was handed over, or runs elsewhere. */
import { type Caller, streamCall } from './caller.js'
import { FaaSConnectionError, FaaSResponseError } from './errors.js'
import { backoffMs, pause } from './transport.js'
import type { CallOptions, ExecutionResult, StreamEvent } from './types.js'
import { asReply, queryString, toResult } from './wire.js'
import type { Execution, ExecutionPage, ExecutionState, LogPage } from './wire-types.js'

export interface ExecutionQuery extends CallOptions {
  /** One or more states, comma-separated; `active`: every one that is not over. */
  readonly state?: ExecutionState | 'active' | (string & {})
  readonly instanceId?: string
  /** Default 50, at most 1000. */
  readonly limit?: number
  readonly cursor?: string
  /** Of every principal; needs the scope `admin`. */
  readonly all?: boolean
}

export interface LogQuery extends CallOptions {
  readonly fromSeq?: number
  readonly limit?: number
  /** Wait this long for the first new entry, ms. */
  readonly waitMs?: number
}

export class Executions {
  readonly #caller: Caller
  constructor(caller: Caller) {
    this.#caller = caller
  }

  /** @throws FaaSApiError `execution/not-found` */
  async get(id: string, options: CallOptions = {}): Promise<Execution> {
    return asReply(await this.#caller.get(pathOf(id), options))
  }

  /** Newest first. */
  async list(query: ExecutionQuery = {}): Promise<ExecutionPage> {
    const { state, instanceId, limit, cursor, all } = query
    return asReply(await this.#caller.get(`/api/v1/executions${queryString({ state, instance_id: instanceId, limit, cursor, all })}`, query))
  }

  /** Ends it and waits until it has ended. @throws FaaSApiError `execution/not-running` when it had ended before */
  async cancel(id: string, options: CallOptions = {}): Promise<Execution> {
    return asReply(await this.#caller.post(`${pathOf(id)}/cancel`, {}, options))
  }

  /** What the execution has written so far, both streams in order of arrival. */
  async logs(id: string, options: CallOptions = {}): Promise<string> {
    let all = ''
    for (let fromSeq = 0; ; ) {
      const { text, headers } = await this.#caller.text(`${pathOf(id)}/logs${queryString({ format: 'text', from_seq: fromSeq, limit: LOG_PAGE_ENTRIES })}`, options)
      all += text
      const next = Number(headers.get('x-next-seq') ?? Number.NaN)
      if (!Number.isSafeInteger(next) || next <= fromSeq) return all
      fromSeq = next
    }
  }

  /** One page of the log with its sequence numbers and times. */
  async logPage(id: string, query: LogQuery = {}): Promise<LogPage> {
    return asReply(await this.#caller.get(`${pathOf(id)}/logs${queryString({ from_seq: query.fromSeq, limit: query.limit, wait_ms: query.waitMs })}`, query))
  }

  /**
   * Output and states from event `fromSeq` on, first what is stored, then live, until the end.
   * A connection that is cut is taken up again where it was.
   */
  async *stream(id: string, options: CallOptions & { readonly fromSeq?: number } = {}): AsyncGenerator<StreamEvent, void, undefined> {
    const { attempts, onRetry } = this.#caller.transport.options
    let fromSeq = options.fromSeq ?? 0
    for (let cuts = 0; ; ) {
      try {
        for await (const event of this.#caller.events(streamCall('GET', `${pathOf(id)}/stream${queryString({ from_seq: fromSeq })}`, options))) {
          fromSeq = event.seq + 1
          cuts = 0
          yield event
        }
        return
      } catch (thrown) {
        if (!(thrown instanceof FaaSConnectionError) || ++cuts >= attempts) throw thrown
        onRetry({ attempt: cuts - 1, error: thrown })
        await pause(backoffMs(cuts - 1), options.signal)
      }
    }
  }

  /** Waits for the end of an execution. */
  async wait(id: string, options: CallOptions = {}): Promise<ExecutionResult> {
    for await (const event of this.stream(id, options)) if (event.type === 'end') return event.result
    const { result } = await this.get(id, options)
    if (result !== null) return toResult(result)
    throw new FaaSResponseError('The stream of the execution ended without its result.', { code: 'client/invalid-response', status: 200 })
  }
}

const LOG_PAGE_ENTRIES = 10_000

function pathOf(id: string): string {
  return `/api/v1/executions/${encodeURIComponent(id)}`
}
