/** Agrees on the API version with the engine, and tells what it is. */
import { FaasError } from '@faas-platform/core'
import type { EngineClient } from './engine-client.js'
import { list, optionalText, shape, sub, text } from './engine-shape.js'

/** Engine 20.10: the first with cgroup v2, one-shot stats and a default seccomp profile that new C libraries can live with. */
export const API_VERSION_MIN = '1.41'
/** The newest that the driver was run against. */
export const API_VERSION_MAX = '1.51'

export interface EngineVersion {
  readonly engine: string
  /** Agreed on; calls use it. */
  readonly api: string
  readonly os: string
  /** As OCI writes it: `amd64`. */
  readonly architecture: string
  /** Component name, lower case → version: `runc`, `containerd`. */
  readonly components: Readonly<Record<string, string>>
}

/** Asks the engine once and makes the client speak the agreed version. @throws FaasError `runtime/unavailable`; EngineError */
export async function negotiate(client: EngineClient, signal: AbortSignal): Promise<EngineVersion> {
  const answer = shape(await client.json({ path: '/version', unversioned: true, signal, deadlineMs: 5_000 }), 'version')
  const newest = text(answer, 'ApiVersion')
  const oldest = optionalText(answer, 'MinAPIVersion') ?? API_VERSION_MIN
  const engine = text(answer, 'Version')
  const api = compareVersions(newest, API_VERSION_MAX) < 0 ? newest : API_VERSION_MAX
  if (compareVersions(api, API_VERSION_MIN) < 0 || compareVersions(api, oldest) < 0) {
    throw new FaasError('runtime/unavailable', {
      message: `Docker Engine ${engine} speaks API ${oldest} to ${newest}; this driver speaks ${API_VERSION_MIN} to ${API_VERSION_MAX}.`,
      hint: 'Use Docker Engine 20.10 or newer.',
    })
  }
  client.useVersion(api)
  const components = list(answer, 'Components').map((entry) => shape(entry, 'Components'))
  return {
    engine,
    api,
    os: text(answer, 'Os'),
    architecture: text(answer, 'Arch'),
    components: Object.fromEntries(components.map((entry) => [text(entry, 'Name').toLowerCase(), text(entry, 'Version') || (optionalText(sub(entry, 'Details'), 'GitCommit') ?? '')])),
  }
}

/** Compares dotted numbers. */
export function compareVersions(a: string, b: string): number {
  const left = a.split('.').map(Number)
  const right = b.split('.').map(Number)
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
