/** `client.keys`: API keys of the gateway. Every call needs the scope `admin`. */
import type { Caller } from './caller.js'
import type { CallOptions } from './types.js'
import { asReplies, asReply, defined } from './wire.js'
import type { Key, NewKey } from './wire-types.js'

export interface CreateKeyOptions extends CallOptions {
  readonly name: string
  /** Default `execute`, `read`, `instances`. */
  readonly scopes?: readonly ('execute' | 'read' | 'instances' | 'images' | 'network' | 'admin')[]
  /** Keys of one principal share what they made. Default: one of its own. */
  readonly principal?: string
  readonly expiresInMs?: number
}

export class Keys {
  readonly #caller: Caller
  constructor(caller: Caller) {
    this.#caller = caller
  }

  /** The reply holds the key itself, this once. */
  async create(options: CreateKeyOptions): Promise<NewKey> {
    const { name, scopes, principal, expiresInMs } = options
    return asReply(await this.#caller.post('/api/v1/keys', { name, ...defined({ scopes, principal, expires_in_ms: expiresInMs }) }, options))
  }

  async list(options: CallOptions = {}): Promise<readonly Key[]> {
    return asReplies(await this.#caller.get('/api/v1/keys', options))
  }

  revoke(id: string, options: CallOptions = {}): Promise<void> {
    return this.#caller.delete(`/api/v1/keys/${encodeURIComponent(id)}`, options)
  }
}
