/** The engine's progress streams: one JSON object per line, a failure as `errorDetail` in the last one. */
import type { IncomingMessage } from 'node:http'
import { EngineError } from './engine-error.js'
import { parseJson } from './engine-client.js'
import { optionalNumber, optionalText, shape, sub, type Shape } from './engine-shape.js'

const LINE_BYTES_MAX = 1024 * 1024

export interface JsonLinesOptions {
  readonly signal: AbortSignal
  /** Longest silence, ms. */
  readonly idleMsMax: number
}

/**
 * Hands every line to `onLine` until the stream ends.
 * @throws EngineError when a line reports a failure, and when the stream stalls or breaks
 */
export async function readJsonLines(reply: IncomingMessage, options: JsonLinesOptions, onLine: (line: Shape) => void): Promise<void> {
  const { signal, idleMsMax } = options
  let stop: unknown
  const end = (reason: unknown): void => {
    stop ??= reason
    reply.destroy()
  }
  const onAbort = (): void => {
    end(signal.reason)
  }
  const stalled = (): void => {
    end(new EngineError('timeout', `The engine was silent for ${idleMsMax} ms.`))
  }
  let timer = setTimeout(stalled, idleMsMax)
  signal.addEventListener('abort', onAbort, { once: true })
  if (signal.aborted) onAbort()
  try {
    let rest = ''
    reply.setEncoding('utf8')
    for await (const chunk of reply as AsyncIterable<string>) {
      clearTimeout(timer)
      timer = setTimeout(stalled, idleMsMax)
      const lines = (rest + chunk).split('\n')
      rest = lines.pop() ?? ''
      if (rest.length > LINE_BYTES_MAX) throw new EngineError('protocol', 'A progress line of the engine is too long.')
      for (const line of lines) take(line, onLine)
    }
    take(rest, onLine)
    if (stop !== undefined) throw stop
  } catch (error) {
    if (stop !== undefined) throw stop
    if (error instanceof EngineError) throw error
    if (error instanceof Error && 'code' in error) throw new EngineError('unreachable', 'The engine broke off its progress stream.', null, error)
    throw error
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
    reply.destroy()
  }
}

function take(line: string, onLine: (line: Shape) => void): void {
  if (line.trim() === '') return
  const entry = shape(parseJson(line), 'progress line')
  const failure = sub(entry, 'errorDetail')
  const message = optionalText(failure, 'message') ?? optionalText(entry, 'error')
  if (message !== undefined) throw new EngineError('status', message, optionalNumber(failure, 'code') ?? null)
  onLine(entry)
}
