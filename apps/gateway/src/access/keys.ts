/**
 * API keys: made here, stored as hashes, found again by hash.
 *
 * I1. The key itself leaves this module once, to whoever had it made; the ledger never sees it.
 * I2. An expired key stops working at once, a revoked one within `CACHE_MS`: another process may revoke it in the ledger.
 */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import type { Clock, Ids, KeyId, KeyRecord, Ledger, PrincipalId } from '@faas-platform/core'
import { asId, FaasError } from '@faas-platform/core'

export const SCOPES = ['execute', 'read', 'instances', 'images', 'network', 'admin'] as const
export type Scope = (typeof SCOPES)[number]
export const DEFAULT_SCOPES: readonly Scope[] = ['execute', 'read', 'instances']

export interface NewKey {
  readonly name: string
  readonly scopes: readonly Scope[]
  /** Keys of one principal share executions, instances and limits. Absent: the key is a principal of its own. */
  readonly principal?: string
  readonly expiresAtMs?: number | null
}

/** @returns The key, to be shown once, and its record. */
export async function createKey(ledger: Ledger, wanted: NewKey, source: { readonly clock: Clock; readonly ids: Ids }): Promise<{ readonly key: string; readonly record: KeyRecord }> {
  // 256 random bits: nothing slower than SHA-256 would add anything against guessing.
  const key = `faas_${randomBytes(32).toString('base64url')}`
  const id = asId<KeyId>(source.ids.uuid())
  const record: KeyRecord = {
    id,
    name: wanted.name,
    principal: asId<PrincipalId>(wanted.principal ?? `key:${id}`),
    hash: hashKey(key),
    prefix: key.slice(0, 12),
    scopes: [...wanted.scopes],
    createdAtMs: source.clock.nowMs(),
    expiresAtMs: wanted.expiresAtMs ?? null,
    revokedAtMs: null,
    lastUsedAtMs: null,
  }
  await ledger.putKey(record)
  return { key, record }
}

/** @throws FaasError `key/not-found` */
export async function revokeKey(ledger: Ledger, id: string, nowMs: number): Promise<void> {
  if (!(await ledger.revokeKey(asId<KeyId>(id), nowMs))) throw new FaasError('key/not-found', { message: `There is no API key ${id}.` })
}

const CACHE_MAX = 1024
const CACHE_MS = 1000
const TOUCH_EVERY_MS = 60_000

/** Looks keys up, remembering the good ones for a moment. */
export class KeyRing {
  readonly #known = new Map<string, { readonly record: KeyRecord; readonly untilMs: number }>()
  readonly #touchedAtMs = new Map<string, number>()

  constructor(private readonly ledger: Ledger, private readonly clock: Clock, private readonly onTouchFailed: (error: unknown) => void) {}

  /** @returns The record, or null when the key is unknown, expired or revoked. */
  async find(key: string): Promise<KeyRecord | null> {
    const hash = hashKey(key)
    const now = this.clock.nowMs()
    const known = this.#known.get(hash)
    const isFresh = known !== undefined && known.untilMs > now
    const record = isFresh ? known.record : await this.ledger.findKey(hash)
    if (record === null || !timingSafeEqual(Buffer.from(record.hash, 'hex'), Buffer.from(hash, 'hex'))) return null
    if (record.revokedAtMs !== null || (record.expiresAtMs !== null && record.expiresAtMs <= now)) return null
    if (!isFresh) {
      if (this.#known.size >= CACHE_MAX) this.#known.clear()
      this.#known.set(hash, { record, untilMs: now + CACHE_MS }) // I2
    }
    this.#touch(record, now)
    return record
  }

  /** After a key was revoked. */
  forget(): void {
    this.#known.clear()
  }

  #touch(record: KeyRecord, nowMs: number): void {
    if (nowMs - (this.#touchedAtMs.get(record.id) ?? 0) < TOUCH_EVERY_MS) return
    if (this.#touchedAtMs.size >= CACHE_MAX) this.#touchedAtMs.clear()
    this.#touchedAtMs.set(record.id, nowMs)
    this.ledger.touchKey(record.id, nowMs).catch(this.onTouchFailed)
  }
}

function hashKey(key: string): string {
  return createHash('sha256').update(key).digest('hex')
}
