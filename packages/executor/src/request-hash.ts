/** A hash over everything a request says, so that a repeated idempotency key can be told from a misused one. */
import { createHash } from 'node:crypto'
import type { ExecuteRequest } from '@faas-platform/core'

export function hashRequest(request: ExecuteRequest): string {
  return createHash('sha256').update(canonical(request)).digest('hex')
}

/** JSON with sorted keys; bytes as base64; absent and undefined are the same. */
function canonical(value: unknown): string {
  if (value instanceof Uint8Array) return `b64:${Buffer.from(value).toString('base64')}`
  if (Array.isArray(value)) return `[${value.map(canonical).join()}]`
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined).sort(([a], [b]) => (a < b ? -1 : 1))
    return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join()}}`
  }
  return JSON.stringify(value)
}
