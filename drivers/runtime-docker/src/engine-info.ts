/** What the engine says of its host and its settings, as far as safety depends on it. */
import { knownVulnerabilities, type ProbeFact, type Vulnerability } from '@faas-platform/core'
import type { EngineClient } from './engine-client.js'
import { flag, optionalText, shape, sub, texts, type Shape } from './engine-shape.js'
import { compareVersions, type EngineVersion } from './engine-version.js'

export interface EngineInfo {
  readonly facts: readonly ProbeFact[]
  readonly vulnerabilities: readonly Vulnerability[]
}

export async function readEngineInfo(client: EngineClient, engine: EngineVersion, wanted: { readonly runtime: string; readonly ownSeccomp: boolean }, signal: AbortSignal): Promise<EngineInfo> {
  const { runtime } = wanted
  const info = shape(await client.json({ path: '/info', signal, deadlineMs: 10_000 }), 'info')
  const runtimes = Object.keys(sub(info, 'Runtimes'))
  const facts: ProbeFact[] = [
    { name: 'engine', ok: true, evidence: `Docker Engine ${engine.engine}, API ${engine.api}, storage ${optionalText(info, 'Driver') ?? '?'}, cgroup v${optionalText(info, 'CgroupVersion') ?? '1'}` },
    { name: 'runtime', ok: runtimes.includes(runtime), evidence: runtimes.includes(runtime) ? `OCI runtime ${runtime}` : `the engine has ${runtimes.join(', ')}, not ${runtime}` },
    limitFact(info),
    seccompFact(info, engine, wanted.ownSeccomp),
  ]
  return { facts, vulnerabilities: vulnerabilities(runtime, engine, info) }
}

/** A limit that the kernel does not enforce would be a lie to every caller. */
function limitFact(info: Shape): ProbeFact {
  const missing = (['MemoryLimit', 'PidsLimit', 'CpuCfsQuota'] as const).filter((name) => !flag(info, name) && !(name === 'CpuCfsQuota' && flag(info, 'CpuCfsPeriod')))
  return { name: 'limits', ok: missing.length === 0, evidence: missing.length === 0 ? 'memory, processes and CPU can be limited' : `the kernel or the engine does not offer ${missing.join(', ')}` }
}

/** Engines before 23 have no name for their default profile, so it can only be seen, not asked for. */
function seccompFact(info: Shape, engine: EngineVersion, own: boolean): ProbeFact {
  const option = texts(info, 'SecurityOptions').find((entry) => entry.startsWith('name=seccomp'))
  const asked = compareVersions(engine.api, '1.42') >= 0
  const isDefault = /profile=(default|builtin)/.test(option ?? '')
  const ok = option !== undefined && (own || asked || isDefault)
  if (ok && own) return { name: 'seccomp', ok, evidence: 'every sandbox gets the configured profile' }
  return { name: 'seccomp', ok, evidence: option === undefined ? 'the engine has no seccomp' : asked ? 'the built-in profile is demanded for every sandbox' : option }
}

function vulnerabilities(runtime: string, engine: EngineVersion, info: Shape): readonly Vulnerability[] {
  if (runtime !== 'runc') return [] // the engine does not tell the version of any other
  const version = engine.components['runc'] ?? ''
  // Distributions write their revision, with its backports, where the upstream has the commit.
  const revision = optionalText(sub(info, 'RuncCommit'), 'ID') ?? ''
  const fromVersion = knownVulnerabilities('runc', version)
  if (!revision.startsWith(version.replace(/[+~].*$/, ''))) return fromVersion
  const fromRevision = new Set(knownVulnerabilities('runc', revision).map(({ id }) => id))
  return fromVersion.filter(({ id }) => fromRevision.has(id))
}
