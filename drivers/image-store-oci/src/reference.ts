/**
 * Image references by the grammar of the OCI distribution spec and Docker's defaults.
 *
 * `alpine` → `docker.io/library/alpine:latest`; a first component counts as a registry only when it has a dot,
 * a port, an upper-case letter, or is `localhost`.
 */
import { FaasError, isImageDigest, type ImageDigest } from '@faas-platform/core'

export interface NamedReference {
  readonly kind: 'named'
  /** Host with optional port, as the user means it: `docker.io`, `localhost:5000`, `[::1]:5000`. */
  readonly registry: string
  readonly repository: string
  /** Absent when a digest is there: the digest wins and the tag says nothing more. */
  readonly tag?: string
  readonly digest?: ImageDigest
  /** The normalised text. */
  readonly text: string
}

/** A bare digest: names stored content only, no registry is asked for it. */
export interface DigestReference {
  readonly kind: 'digest'
  readonly digest: ImageDigest
  readonly text: string
}

export type Reference = NamedReference | DigestReference

const TEXT_MAX = 512
const NAME_MAX = 255
const HOST = /^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[0-9a-fA-F:]{2,45}\])(?::([0-9]{1,5}))?$/
const PATH_COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/
const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/

/** @throws FaasError `image/invalid-reference` */
export function parseReference(text: string): Reference {
  if (text.length === 0) throw invalid(text, 'it is empty')
  if (text.length > TEXT_MAX) throw invalid(text.slice(0, 64) + '…', `it is longer than ${TEXT_MAX} characters`)
  if (isImageDigest(text)) return { kind: 'digest', digest: text, text }

  const at = text.indexOf('@')
  const digest = at < 0 ? undefined : text.slice(at + 1)
  if (digest !== undefined && !isImageDigest(digest)) throw invalid(text, 'the digest must be sha256: and 64 lower-case hexadecimal digits')
  const { name, tag } = splitTag(at < 0 ? text : text.slice(0, at))
  if (tag !== undefined && !TAG.test(tag)) throw invalid(text, 'the tag must be at most 128 letters, digits, dots, dashes and underscores')

  const { registry, repository } = splitRegistry(name)
  checkRegistry(text, registry)
  checkRepository(text, registry, repository)
  if (digest !== undefined) return { kind: 'named', registry, repository, digest, text: `${registry}/${repository}@${digest}` }
  const effective = tag ?? 'latest'
  return { kind: 'named', registry, repository, tag: effective, text: `${registry}/${repository}:${effective}` }
}

/** @throws FaasError `image/invalid-reference`, also for a bare digest: it is no name to store something under. */
export function parseName(text: string): NamedReference {
  const reference = parseReference(text)
  if (reference.kind === 'digest') throw invalid(text, 'a digest is not a name')
  return reference
}

function splitTag(text: string): { name: string; tag?: string } {
  const colon = text.lastIndexOf(':')
  // A colon before the last slash belongs to a port.
  if (colon < 0 || text.indexOf('/', colon) >= 0) return { name: text }
  return { name: text.slice(0, colon), tag: text.slice(colon + 1) }
}

function splitRegistry(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/')
  const first = slash < 0 ? '' : name.slice(0, slash)
  const isHost = first === 'localhost' || /[.:[\]]/.test(first) || first.toLowerCase() !== first
  if (!isHost) return { registry: 'docker.io', repository: slash < 0 ? `library/${name}` : name }
  const rest = name.slice(slash + 1)
  const isDockerHub = first === 'docker.io' || first === 'index.docker.io'
  if (!isDockerHub) return { registry: first, repository: rest }
  return { registry: 'docker.io', repository: rest.includes('/') ? rest : `library/${rest}` }
}

function checkRegistry(text: string, registry: string): void {
  const match = HOST.exec(registry)
  const port = match?.[1]
  if (match === null || (port !== undefined && (Number(port) === 0 || Number(port) > 65_535))) throw invalid(text, 'the registry is not a host with an optional port')
}

function checkRepository(text: string, registry: string, repository: string): void {
  if (registry.length + 1 + repository.length > NAME_MAX) throw invalid(text, `the name is longer than ${NAME_MAX} characters`)
  if (!repository.split('/').every((part) => PATH_COMPONENT.test(part))) {
    throw invalid(text, 'the repository must be lower-case letters and digits, parted by single dots, underscores, dashes or slashes')
  }
}

function invalid(text: string, why: string): FaasError {
  return new FaasError('image/invalid-reference', {
    message: `"${printable(text)}" is not an image reference: ${why}.`,
    hint: 'Write it like alpine:3.19, ghcr.io/owner/name:tag or localhost:5000/name@sha256:….',
  })
}

function printable(text: string): string {
  return text.replace(/[^\x20-\x7e…]/g, '?')
}
