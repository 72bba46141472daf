/**
 * Turns a registry's challenge into an `authorization` header.
 * @see distribution-spec "Token Authentication"; RFC 7235; RFC 6749 for identity tokens
 */
import { FaasError, type Clock } from '@faas-platform/core'
import { clip } from '../manifest.js'
import type { CredentialSource, RegistryCredentials } from './credentials.js'
import { pullFailed, readBounded, request, TransientError, type HttpOptions } from './http.js'

export interface Challenge {
  readonly scheme: string
  readonly parameters: Readonly<Record<string, string>>
}

const TOKEN_BYTES_MAX = 64 * 1024
/** What the spec says when the server does not. */
const TOKEN_LIFE_S_DEFAULT = 60
const TOKEN_MARGIN_MS = 5_000

interface Cached {
  readonly header: string
  readonly expiresAtMs: number
}

export class Authorizer {
  readonly #cached = new Map<string, Cached>()

  constructor(private readonly options: { readonly credentials: CredentialSource; readonly clock: Clock; readonly http: HttpOptions }) {}

  /** What worked last time and still holds. */
  cached(registry: string, repository: string): string | undefined {
    const entry = this.#cached.get(`${registry}/${repository}`)
    return entry !== undefined && entry.expiresAtMs > this.options.clock.monotonicMs() ? entry.header : undefined
  }

  forget(registry: string, repository: string): void {
    this.#cached.delete(`${registry}/${repository}`)
  }

  /** Answers the challenge. @throws FaasError `image/unauthorized`, `image/pull-failed` */
  async answer(registry: string, repository: string, header: string, base: URL, signal: AbortSignal): Promise<string> {
    const challenges = parseChallenges(header)
    const credentials = await this.options.credentials(registry, signal)
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
    const basic = challenges.find(({ scheme }) => scheme === 'basic')
    let entry: Cached
    if (bearer !== undefined) entry = await this.#token(registry, repository, bearer, credentials, base, signal)
    else if (basic !== undefined && credentials !== undefined && 'username' in credentials) entry = { header: basicHeader(credentials), expiresAtMs: Infinity }
    else throw unauthorized(registry, credentials !== undefined)
    this.#cached.set(`${registry}/${repository}`, entry)
    return entry.header
  }

  async #token(registry: string, repository: string, challenge: Challenge, credentials: RegistryCredentials | undefined, base: URL, signal: AbortSignal): Promise<Cached> {
    const { realm, service, scope = `repository:${repository}:pull` } = challenge.parameters
    const url = parseRealm(realm, base)
    const fields = new URLSearchParams({ ...(service !== undefined && { service }), scope })
    let response
    if (credentials !== undefined && 'identityToken' in credentials) {
      fields.set('grant_type', 'refresh_token')
      fields.set('client_id', 'faas-platform')
      fields.set('refresh_token', credentials.identityToken)
      response = await request(url, { method: 'POST', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: fields.toString() }, signal, this.options.http)
    } else {
      for (const [name, value] of fields) url.searchParams.append(name, value)
      const headers = credentials === undefined ? {} : { authorization: basicHeader(credentials) }
      response = await request(url, { headers }, signal, this.options.http)
    }
    if (response.status === 401 || response.status === 403) {
      await response.discard()
      throw unauthorized(registry, credentials !== undefined)
    }
    if (response.status !== 200) {
      await response.discard()
      const text = `the token service of ${registry} answered ${response.status}`
      throw response.status === 429 || response.status >= 500 ? new TransientError(text, undefined) : pullFailed(`${text[0]?.toUpperCase()}${text.slice(1)}.`)
    }
    return this.#parse(await readBounded(response, TOKEN_BYTES_MAX, () => pullFailed(`The token service of ${registry} sent too much.`)), registry)
  }

  #parse(bytes: Uint8Array, registry: string): Cached {
    let value: unknown
    try {
      value = JSON.parse(new TextDecoder().decode(bytes))
    } catch (cause) {
      throw pullFailed(`The token service of ${registry} sent no JSON.`, cause)
    }
    const answer: Readonly<Record<string, unknown>> = typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
    const token = answer['token'] ?? answer['access_token']
    // A line break would let the token service write further headers.
    if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) throw pullFailed(`The token service of ${registry} sent no token.`)
    const lifeS = typeof answer['expires_in'] === 'number' && answer['expires_in'] > 0 ? answer['expires_in'] : TOKEN_LIFE_S_DEFAULT
    return { header: `Bearer ${token}`, expiresAtMs: this.options.clock.monotonicMs() + lifeS * 1000 - TOKEN_MARGIN_MS }
  }
}

/** `Bearer realm="…",service="…", Basic realm="…"` → schemes in lower case with their parameters. */
export function parseChallenges(header: string): readonly Challenge[] {
  const challenges: { scheme: string; parameters: Record<string, string> }[] = []
  const part = /\s*,?\s*([A-Za-z0-9!#$%&'*+.^_`|~-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?/y
  for (let match = part.exec(header); match !== null && match[0] !== ''; match = part.exec(header)) {
    const [, word = '', quoted, plain] = match
    if (quoted === undefined && plain === undefined) challenges.push({ scheme: word.toLowerCase(), parameters: {} })
    else {
      const last = challenges.at(-1)
      if (last !== undefined) last.parameters[word.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? ''
    }
  }
  return challenges
}

function parseRealm(realm: string | undefined, base: URL): URL {
  let url: URL
  try {
    url = new URL(realm ?? '')
  } catch (cause) {
    throw pullFailed(`The registry names no usable token service ("${clip(realm ?? '')}").`, cause)
  }
  // A registry reached over TLS must not talk us into sending credentials in the clear.
  if (base.protocol === 'https:' && url.protocol !== 'https:') throw pullFailed('The registry wants its token service to be asked without TLS.')
  return url
}

function basicHeader(credentials: RegistryCredentials): string {
  const { username, password } = 'username' in credentials ? credentials : { username: '', password: '' }
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

export function unauthorized(registry: string, hadCredentials: boolean): FaasError {
  return new FaasError('image/unauthorized', {
    message: hadCredentials ? `The registry ${registry} did not accept the credentials it was given.` : `The registry ${registry} demands credentials, or the image does not exist there.`,
    hint: 'Check the name. Credentials come from the file that FAAS_REGISTRY_AUTH_FILE names; `docker login` writes one.',
  })
}
