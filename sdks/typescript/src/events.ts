/** Server-sent events of the gateway → values of this client. */
import { FaaSError, FaaSResponseError, isRecord } from './errors.js'
import type { PullProgress, StreamEvent } from './types.js'
import { asReply, bytesFromBase64, text, toResult } from './wire.js'

/** @throws FaaSError what an `error` event says */
export function parseEvent(type: string, data: string): Readonly<Record<string, unknown>> {
  let body: unknown
  try {
    body = JSON.parse(data)
  } catch (cause) {
    throw new FaaSResponseError('The stream holds an event that is not JSON.', { code: 'client/invalid-response', status: 200, cause })
  }
  const record = asReply<Record<string, unknown>>(body)
  if (type !== 'error') return record
  const error = isRecord(record['error']) ? record['error'] : {}
  throw new FaaSError(text(error['message']) ?? 'The stream ended with an error.', {
    code: text(error['code']) ?? 'internal/bug', status: 200, hint: text(error['hint']), requestId: text(record['request_id']),
    details: isRecord(error['details']) ? error['details'] : undefined,
  })
}

/** @returns undefined for an event of a kind that this client does not know yet. */
export function toStreamEvent(type: string, data: string, asked: string | undefined): StreamEvent | undefined {
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

export function toPullProgress(body: Readonly<Record<string, unknown>>): PullProgress {
  const bytes = (key: string): number | null => (typeof body[key] === 'number' ? body[key] : null)
  return { layer: text(body['layer']) ?? '', phase: text(body['phase']) ?? '', currentBytes: bytes('current_bytes') ?? 0, totalBytes: bytes('total_bytes') }
}
