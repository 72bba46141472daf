/** One page of an execution's log, without waiting for what is not there yet (unless asked to). */
import { Buffer } from 'node:buffer'
import type { ExecutionEvent, ExecutionId, PrincipalId } from '@faas-platform/core'
import { EXECUTION_STATES, isFinal } from '@faas-platform/core'
import type { LogReply } from '@faas-platform/protocol'
import { wireEvent } from '@faas-platform/protocol'
import type { ServedExecutor } from './context.js'

/** A page is complete when the source stays silent this long: replay comes without a pause. */
const SILENCE_MS = 25
const PAGE_BYTES_MAX = 8 * 1024 * 1024

export interface LogPageOptions {
  readonly fromSeq: number
  readonly limit: number
  readonly waitMs: number
  readonly signal: AbortSignal
}

/** @throws FaasError `execution/not-found` */
export async function readLog(executor: ServedExecutor, id: ExecutionId, principal: PrincipalId | null, options: LogPageOptions): Promise<{ readonly reply: LogReply; readonly text: Buffer }> {
  const record = await executor.get(id, principal)
  const ended = isFinal(EXECUTION_STATES, record.state)
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  const entries: ExecutionEvent[] = []
  let bytes = 0
  let complete = false
  let timer = ended ? undefined : setTimeout(() => stop.abort(), Math.max(SILENCE_MS, options.waitMs))
  try {
    for await (const event of executor.subscribe(id, principal, { fromSeq: options.fromSeq, signal })) {
      if (event.type === 'end') {
        complete = true
        break
      }
      entries.push(event)
      if ('bytes' in event) bytes += event.bytes.length
      if (entries.length >= options.limit || bytes >= PAGE_BYTES_MAX) break
      if (timer === undefined) continue
      clearTimeout(timer)
      timer = setTimeout(() => stop.abort(), SILENCE_MS)
    }
    if (ended && entries.length === 0) complete = true // Asked for more than there is.
  } catch (thrown) {
    if (!stop.signal.aborted) throw thrown
  } finally {
    clearTimeout(timer)
  }
  const last = entries.at(-1)
  return {
    reply: {
      request_id: id,
      status: ended ? record.state : (await executor.get(id, principal)).state,
      entries: entries.map((event) => wireEvent(event)) as LogReply['entries'],
      next_seq: last === undefined ? options.fromSeq : last.seq + 1,
      complete,
    },
    text: Buffer.concat(entries.flatMap((event) => ('bytes' in event ? [event.bytes] : []))),
  }
}
