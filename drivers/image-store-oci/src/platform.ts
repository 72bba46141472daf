/** Which of an index's images runs on this host. */
import { FaasError } from '@faas-platform/core'
import type { ConfigFile, Descriptor } from './manifest.js'

export interface Platform {
  readonly os: 'linux'
  readonly architecture: 'amd64' | 'arm64'
}

const NODE_ARCHITECTURES: Readonly<Record<string, Platform['architecture']>> = { x64: 'amd64', arm64: 'arm64' }
const ALIASES: Readonly<Record<string, string>> = { x86_64: 'amd64', aarch64: 'arm64' }

/** @throws FaasError `image/platform-mismatch` on a machine that no image is published for. */
export function hostPlatform(nodeArchitecture: string = process.arch): Platform {
  const architecture = NODE_ARCHITECTURES[nodeArchitecture]
  if (architecture === undefined) throw new FaasError('image/platform-mismatch', { message: `Images for the processor ${nodeArchitecture} are not supported.` })
  return { os: 'linux', architecture }
}

/** The first that fits, a plain one before one that asks for a newer processor. @throws FaasError `image/platform-mismatch` */
export function selectPlatform(candidates: readonly Descriptor[], wanted: Platform): Descriptor {
  const fitting = candidates.filter(({ platform }) => platform !== undefined && fits(platform.os, platform.architecture, wanted))
  const best = fitting.find(({ platform }) => isBaseline(platform?.variant ?? '')) ?? fitting[0]
  if (best !== undefined) return best
  // A list of one without a platform speaks for itself: its config will be checked.
  const [only] = candidates
  if (candidates.length === 1 && only !== undefined && only.platform === undefined) return only
  const offered = candidates.flatMap(({ platform }) => (platform === undefined ? [] : [`${platform.os}/${platform.architecture}`]))
  throw mismatch(wanted, offered)
}

/** @throws FaasError `image/platform-mismatch` */
export function checkPlatform(config: ConfigFile, wanted: Platform): void {
  if (config.os === '' && config.architecture === '') return
  if (!fits(config.os, config.architecture, wanted)) throw mismatch(wanted, [`${config.os}/${config.architecture}`])
}

function fits(os: string, architecture: string, wanted: Platform): boolean {
  return (os === '' || os === wanted.os) && (ALIASES[architecture] ?? architecture) === wanted.architecture
}

function isBaseline(variant: string): boolean {
  return variant === '' || variant === 'v1' || variant === 'v8'
}

function mismatch(wanted: Platform, offered: readonly string[]): FaasError {
  const list = [...new Set(offered)].slice(0, 20)
  return new FaasError('image/platform-mismatch', {
    message: `The image has no variant for ${wanted.os}/${wanted.architecture}.`,
    hint: list.length === 0 ? undefined : `It is offered for ${list.join(', ')}.`,
    details: { wanted: `${wanted.os}/${wanted.architecture}`, offered: list },
  })
}
