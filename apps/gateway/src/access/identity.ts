/** Who asks, and what they may do. */
import type { PrincipalId } from '@faas-platform/core'
import { asId, FaasError } from '@faas-platform/core'
import type { FastifyRequest } from 'fastify'
import type { KeyRing, Scope } from './keys.js'
import { SCOPES } from './keys.js'

export interface Identity {
  readonly principal: PrincipalId
  readonly scopes: ReadonlySet<string>
}

export const LOCAL_PRINCIPAL = asId<PrincipalId>('local')

/** Everybody who can reach a gateway without keys is the machine's own user. */
export const LOCAL: Identity = { principal: LOCAL_PRINCIPAL, scopes: new Set(SCOPES) }

/** @throws FaasError `auth/missing-key`, `auth/invalid-key` */
export async function identify(request: FastifyRequest, keys: KeyRing, keysDemanded: boolean): Promise<Identity> {
  const key = sentKey(request)
  if (key === undefined) {
    if (!keysDemanded) return LOCAL
    throw new FaasError('auth/missing-key', {
      message: 'This gateway demands an API key.',
      hint: 'Send it as "authorization: Bearer <key>" or "x-api-key: <key>"; `faas keys create` makes one.',
    })
  }
  const record = await keys.find(key)
  if (record !== null) return { principal: record.principal, scopes: new Set(record.scopes) }
  // The original clients send whatever key they were configured with to gateways that never asked for one.
  if (!keysDemanded) return LOCAL
  throw new FaasError('auth/invalid-key', { message: 'The API key is unknown, expired or revoked.', hint: '`faas keys ls` lists the keys of a gateway.' })
}

/** @throws FaasError `auth/missing-scope` */
export function demandScope(identity: Identity, scope: Scope): void {
  if (hasScope(identity, scope)) return
  throw new FaasError('auth/missing-scope', { message: `The API key lacks the scope "${scope}".`, details: { scope, scopes: [...identity.scopes] } })
}

/** `admin` has every scope; who may execute may read what came of it. */
export function hasScope(identity: Identity, scope: Scope): boolean {
  return identity.scopes.has(scope) || identity.scopes.has('admin') || (scope === 'read' && identity.scopes.has('execute'))
}

/** Whose records a call by id may touch: null, everybody's, for administrators. */
export function reach(identity: Identity): PrincipalId | null {
  return identity.scopes.has('admin') ? null : identity.principal
}

function sentKey(request: FastifyRequest): string | undefined {
  const header = request.headers['x-api-key']
  if (typeof header === 'string' && header !== '') return header
  const match = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')
  return match?.[1]
}
