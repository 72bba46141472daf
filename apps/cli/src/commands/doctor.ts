import { existsSync, readFileSync, statfsSync } from 'node:fs'
import { availableParallelism, release, totalmem } from 'node:os'
import path from 'node:path'
import { type Config, loadConfig } from '@faas-platform/config'
import { formatBytes, GIB } from '@faas-platform/core'
import type { RuntimeStatus } from '@faas-platform/executor'
import type { Command } from 'commander'
import { type Cli, clientOf, globalOptions, outputOf } from '../context.js'
import type { Output } from '../output.js'

const FREE_BYTES_WANTED = 1 * GIB

interface Tools {
  readonly dir: string
  readonly missing: readonly { readonly name: string; readonly reason: string; readonly lost: string; readonly hint?: string }[]
  /** Tools that were changed after they were fetched, and how. */
  readonly patched: readonly { readonly name: string; readonly patch: string }[]
}

export function registerDoctor(program: Command, cli: Cli): void {
  program
    .command('doctor')
    .description('say what works on this machine, with evidence, and how to get the rest')
    .addHelpText('after', `
Every runtime is tried: its probe makes a sandbox in a data directory of its own and removes it.
Exit code 0 when at least one runtime is usable and no usable one has a known escape, else 69.

Examples:
  faas doctor
  faas doctor --json | jq '.runtimes[] | {name, usable, reason}'`)
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const { config, warnings } = loadConfig([], cli.environment)
      const [runtimes, gateway] = await Promise.all([cli.platform.probe(config), askGateway(cli, command)])
      const host = hostFacts(config)
      const tools = readTools(cli.platform.toolsDir(config))
      output.value({ host, gateway, tools, warnings, runtimes: runtimes.map(plain) }, () => {
        showHost(host, output)
        output.line(`${output.style('bold', 'gateway')}  ${gateway.url} ${gateway.status ?? 'does not answer (start one: faas gateway)'}`)
        showTools(tools, output)
        for (const warning of warnings) output.line(output.style('yellow', warning))
        for (const runtime of runtimes) showRuntime(runtime, output)
      })
      const usable = runtimes.filter(({ probe }) => probe.usable)
      cli.exitCode = usable.length > 0 && usable.every(({ probe }) => probe.vulnerabilities.length === 0) ? 0 : 69
    })
}

function hostFacts(config: Config) {
  const existing = nearestExisting(config.dataDir)
  const { bavail, bsize } = statfsSync(existing)
  return {
    node: process.version, platform: `${process.platform}/${process.arch}`, kernel: release(), cores: availableParallelism(), memory_bytes: totalmem(),
    root: process.getuid?.() === 0, cgroup: existsSync('/sys/fs/cgroup/cgroup.controllers') ? 'v2' : existsSync('/sys/fs/cgroup/memory') ? 'v1' : 'none',
    data_dir: config.dataDir, free_bytes: bavail * bsize,
  }
}

function nearestExisting(dir: string): string {
  return existsSync(dir) || path.dirname(dir) === dir ? dir : nearestExisting(path.dirname(dir))
}

function showHost(host: ReturnType<typeof hostFacts>, output: Output): void {
  const label = (text: string): string => output.style('bold', text.padEnd(7))
  output.line(`${label('host')}  ${host.platform}, kernel ${host.kernel}, cgroup ${host.cgroup}, ${host.cores} cores, ${formatBytes(host.memory_bytes)}, node ${host.node}`)
  output.line(`${label('user')}  ${host.root ? 'root' : 'not root: runc, crun and gVisor need it; Docker works when its socket is yours'}`)
  const little = host.free_bytes < FREE_BYTES_WANTED
  const free = `${formatBytes(host.free_bytes)} free`
  output.line(`${label('data')}  ${host.data_dir}, ${little ? output.style('yellow', `${free}: little for images and sandboxes`) : free}`)
}

function showTools(tools: Tools | null, output: Output): void {
  const label = output.style('bold', 'tools  ')
  if (tools === null) return output.line(`${label}  not set up here: programs are looked for on PATH (\`npm start\` fetches them)`)
  output.line(`${label}  ${tools.dir}${tools.missing.length === 0 ? ', nothing missing' : ''}`)
  for (const { name, reason, lost, hint } of tools.missing) output.line(`  ${output.style('red', '✗')} ${name}: ${reason}. Without it: ${lost}.${hint === undefined ? '' : ` To get it: ${hint}.`}`)
  for (const { name, patch } of tools.patched) output.line(`  ${output.style('yellow', '!')} ${name} is patched: ${patch}`)
}

/** The manifest that the set-up leaves beside its tools. */
function readTools(dir: string): Tools | null {
  const manifest = path.join(dir, 'tools.json')
  if (!existsSync(manifest)) return null
  const { tools = [], missing = [] } = JSON.parse(readFileSync(manifest, 'utf8')) as { tools?: { name: string; patch?: unknown }[]; missing?: Tools['missing'] }
  return {
    dir, missing,
    patched: tools.flatMap(({ name, patch }) => (patch === undefined ? [] : [{ name, patch: typeof patch === 'string' ? patch : JSON.stringify(patch) }])),
  }
}

async function askGateway(cli: Cli, command: Command): Promise<{ readonly url: string; readonly status: string | null }> {
  const { url } = globalOptions(cli, command)
  try {
    const { status, version } = await clientOf(cli, command, { timeoutMs: 2_000, attempts: 1 }).healthCheck({ signal: cli.signal })
    return { url, status: `is ${status}, version ${version}` }
  } catch (thrown) {
    if (cli.signal.aborted) throw thrown
    return { url, status: null } // a finding, not a failure
  }
}

function showRuntime({ name, isolation, probe }: RuntimeStatus, output: Output): void {
  output.line()
  output.line(`${output.style('bold', name)}  ${probe.usable ? output.style('green', 'usable') : output.style('red', 'not usable')}  ${probe.version ?? ''}  isolation: ${isolation}`)
  output.line(`  ${probe.reason}`)
  if (probe.hint !== undefined) output.line(`  ${output.style('cyan', 'to get it:')} ${probe.hint}`)
  for (const fact of probe.facts) output.line(`  ${fact.ok ? output.style('green', '✓') : output.style('red', '✗')} ${fact.name}: ${fact.evidence}`)
  for (const escape of probe.vulnerabilities) output.line(`  ${output.style('red', '!')} ${escape.id}, fixed in ${escape.fixedIn}: ${escape.summary}`)
}

function plain({ name, isolation, features, probe }: RuntimeStatus) {
  return { name, isolation, features, ...probe }
}
