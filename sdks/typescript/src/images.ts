/** `client.images`: what the gateway has stored. */
import { type Caller, streamCall } from './caller.js'
import { FaaSResponseError } from './errors.js'
import { parseEvent, toPullProgress } from './events.js'
import type { CallOptions, PullProgress } from './types.js'
import { asReplies, asReply, defined, queryString } from './wire.js'
import type { Image, PulledImage } from './wire-types.js'

export interface ImageCallOptions extends CallOptions {
  /** Family of the store: `oci` or `docker`. Default: the gateway's first. */
  readonly store?: string
}

export interface BuildImageOptions extends ImageCallOptions {
  /** Default `/bin/sh`. */
  readonly command?: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly workingDir?: string
  readonly user?: string
}

export class Images {
  readonly #caller: Caller
  constructor(caller: Caller) {
    this.#caller = caller
  }

  async list(options: CallOptions = {}): Promise<readonly Image[]> {
    return asReplies(await this.#caller.get('/api/v1/images', options))
  }

  /** Pulls from the image's registry. `onProgress` gets every layer's bytes as they come. */
  async pull(reference: string, options: ImageCallOptions & { readonly onProgress?: (progress: PullProgress) => void } = {}): Promise<PulledImage> {
    for await (const message of this.#caller.messages(streamCall('POST', '/api/v1/images/pull', options, { reference, ...defined({ store: options.store }) }))) {
      const body = parseEvent(message.event, message.data)
      if (message.event === 'progress') options.onProgress?.(toPullProgress(body))
      if (message.event === 'end') return asReply(body)
    }
    throw new FaaSResponseError('The pull ended without its result.', { code: 'client/invalid-response', status: 200 })
  }

  /** Imports an OCI layout or a `docker save` archive that lies on the gateway's host. Needs the scope `admin`. */
  async import(path: string, options: ImageCallOptions & { readonly reference?: string } = {}): Promise<readonly Image[]> {
    return asReplies(await this.#caller.post('/api/v1/images/import', { path, ...defined({ reference: options.reference, store: options.store }) }, options))
  }

  /** Makes a one-layer image of a directory on the gateway's host. Needs the scope `admin`. */
  async build(path: string, reference: string, options: BuildImageOptions = {}): Promise<Image> {
    const { store, command, env, workingDir, user } = options
    return asReply(await this.#caller.post('/api/v1/images/build', { path, reference, ...defined({ store, command, env, working_dir: workingDir, user }) }, options))
  }

  remove(reference: string, options: ImageCallOptions = {}): Promise<void> {
    return this.#caller.delete(`/api/v1/images${queryString({ reference, store: options.store })}`, options)
  }
}
