/**
 * Image references in their full form, as the engine understands them.
 * @see distribution/reference, "Grammar"; short names mean docker.io, as everywhere
 */
import { FaasError } from '@faas-platform/core'

const DOMAIN = /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?$/
const PATH = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$/
const TAG = /^\w[\w.-]{0,127}$/
const DIGEST = /^sha256:[0-9a-f]{64}$/
const NAME_LENGTH_MAX = 255

export interface ImageReference {
  readonly registry: string
  /** With the registry: `docker.io/library/python`. */
  readonly name: string
  /** Null when only a digest is given. */
  readonly tag: string | null
  readonly digest: string | null
  /** `name[:tag][@digest]` */
  readonly full: string
}

/** @throws FaasError `image/invalid-reference` */
export function parseImageReference(reference: string): ImageReference {
  const at = reference.indexOf('@')
  const digest = at < 0 ? null : reference.slice(at + 1)
  const named = at < 0 ? reference : reference.slice(0, at)
  const colon = named.lastIndexOf(':')
  const hasTag = colon > named.lastIndexOf('/')
  const tag = hasTag ? named.slice(colon + 1) : digest === null ? 'latest' : null
  const bare = hasTag ? named.slice(0, colon) : named
  const slash = bare.indexOf('/')
  const first = slash < 0 ? '' : bare.slice(0, slash)
  const isRegistry = first.includes('.') || first.includes(':') || first === 'localhost'
  const registry = isRegistry ? (first === 'index.docker.io' ? 'docker.io' : first) : 'docker.io'
  const rest = isRegistry ? bare.slice(slash + 1) : bare
  const path = registry === 'docker.io' && !rest.includes('/') ? `library/${rest}` : rest
  const name = `${registry}/${path}`
  const valid = DOMAIN.test(registry) && PATH.test(path) && name.length <= NAME_LENGTH_MAX && (tag === null || TAG.test(tag)) && (digest === null || DIGEST.test(digest))
  if (!valid) {
    throw new FaasError('image/invalid-reference', {
      message: 'The image reference is not valid.',
      hint: 'Write it as [registry/]name[:tag][@sha256:digest], in lower case.',
      details: { reference: reference.slice(0, 300) },
    })
  }
  return { registry, name, tag, digest, full: name + (tag === null ? '' : `:${tag}`) + (digest === null ? '' : `@${digest}`) }
}
