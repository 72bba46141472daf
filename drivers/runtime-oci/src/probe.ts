/** Is the runtime usable here? Answered by running a sandbox with nothing in it but the agent. */
import { access, constants } from 'node:fs/promises'
import { ADVISORIES_AS_OF, knownVulnerabilities, type LogSink, type ProbeFact, type ProbeReport, type Sandbox, type Vulnerability } from '@faas-platform/core'
import type { CgroupHost, HostKit } from '@faas-platform/host'
import { AGENT_DIR } from './config-json.js'
import type { OciRuntimeName } from './runtime-command.js'

export interface ProbeOptions {
  readonly name: OciRuntimeName
  readonly runtimePath: string
  readonly agentPath: string
  readonly hostkitPath: string
  readonly hostkit: HostKit
  readonly cgroups: CgroupHost
  readonly userNamespace: boolean
  readonly log: LogSink
  /** Makes a sandbox without an image. */
  readonly makeSandbox: (signal: AbortSignal) => Promise<Sandbox>
  readonly network: () => Promise<readonly ProbeFact[]>
  readonly signal: AbortSignal
}

const PROBE_DEADLINE_MS = 10_000
const VERSION_DEADLINE_MS = 5_000

export async function probeRuntime(options: ProbeOptions): Promise<ProbeReport> {
  const facts: ProbeFact[] = []
  const broken = (reason: string, hint: string, version: string | null = null): ProbeReport => ({ usable: false, reason, hint, version, vulnerabilities: [], facts })

  if (process.platform !== 'linux') return broken('This runtime needs Linux.', 'Use the docker runtime with a remote engine.')
  const root = process.getuid?.() === 0
  facts.push({ name: 'root', ok: root, evidence: root ? 'running as root' : `running as user ${process.getuid?.() ?? '?'}` })
  if (!root) return broken('Namespaces, cgroups and mounts need root.', 'Start the platform as root, or use the docker runtime.')
  for (const [name, path] of [['runtime', options.runtimePath], ['agent', options.agentPath], ['host helper', options.hostkitPath]] as const) {
    const found = await isExecutable(path)
    facts.push({ name, ok: found, evidence: found ? path : `no executable at ${path}` })
    if (!found) return broken(`The ${name} is missing.`, 'Run `npm start`, which fetches and builds what is needed.')
  }
  facts.push({ name: 'cgroups', ok: true, evidence: options.cgroups.description })

  const { version, revision, text } = await versionOf(options)
  facts.push({ name: 'version', ok: version !== null, evidence: text })
  if (version === null) return broken('The runtime does not say its version.', 'Reinstall it with `npm start`.')
  const vulnerabilities: readonly Vulnerability[] = knownVulnerabilities(options.name, version, revision)
  facts.push({
    name: 'known escapes',
    ok: vulnerabilities.length === 0,
    evidence: vulnerabilities.length === 0 ? `none as of ${ADVISORIES_AS_OF}` : vulnerabilities.map(({ id, fixedIn }) => `${id} (fixed in ${fixedIn})`).join(', '),
  })

  const run = await runSomething(options)
  facts.push(run)
  if (!run.ok) {
    return { ...broken(`A trivial sandbox does not run: ${run.evidence}`, 'The evidence has the runtime\'s own words; `faas doctor` shows all of it.', version), vulnerabilities }
  }
  facts.push(...(await options.network()))
  return { usable: true, reason: `A trivial sandbox ran: ${run.evidence}.`, version, vulnerabilities, facts }
}

async function runSomething(options: ProbeOptions): Promise<ProbeFact> {
  const signal = AbortSignal.any([options.signal, AbortSignal.timeout(PROBE_DEADLINE_MS)])
  const begun = performance.now()
  let sandbox: Sandbox | undefined
  try {
    sandbox = await options.makeSandbox(signal)
    const output: string[] = []
    const handle = await sandbox.exec(
      { argv: [`/${AGENT_DIR}/agent`, '--version'], env: {} },
      { onOutput: (_, bytes) => void output.push(Buffer.from(bytes).toString('utf8')) },
      { signal },
    )
    const exit = await handle.wait()
    const elapsed = Math.round(performance.now() - begun)
    const ok = exit.exitCode === 0 && /^\d+\.\d+\.\d+/.test(output.join(''))
    const ids = options.userNamespace ? ', in a user namespace of its own' : ''
    return { name: 'run', ok, evidence: ok ? `agent ${output.join('').trim()} answered from inside after ${elapsed} ms${ids}` : `the command ended with ${exit.exitCode ?? exit.signal}` }
  } catch (error) {
    options.signal.throwIfAborted()
    return { name: 'run', ok: false, evidence: words(error) }
  } finally {
    await sandbox?.[Symbol.asyncDispose]()
  }
}

/** The message and what it was caused by, on one line. */
function words(error: unknown): string {
  const parts: string[] = []
  for (let at: unknown = error; at instanceof Error && parts.length < 4; at = at.cause) parts.push(at.message.trim())
  return parts.join(' — ').replaceAll(/\s+/g, ' ').slice(0, 1000)
}

interface VersionText {
  readonly version: string | null
  readonly revision?: string
  readonly text: string
}

async function versionOf(options: ProbeOptions): Promise<VersionText> {
  const done = JSON.parse(
    await options.hostkit.call('run', `argv=${[options.runtimePath, '--version'].join('\0')}`, 'env=PATH=/usr/bin:/bin', `timeout=${VERSION_DEADLINE_MS}`),
  ) as { readonly code: number | null; readonly stdout: string; readonly stderr: string }
  const text = done.stdout.trim().split('\n')
  const version = /version (?:release-)?([0-9][^\s,]*)/.exec(done.stdout)?.[1] ?? null
  const revision = /^commit: (\S+)$/m.exec(done.stdout)?.[1]
  return { version: done.code === 0 ? version : null, ...(revision === undefined ? {} : { revision }), text: done.code === 0 ? text.join('; ') : (done.stderr.trim() || 'no answer') }
}

async function isExecutable(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
