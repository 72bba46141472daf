import { loadConfig } from '@faas-platform/config'
import type { RuntimeStatus } from '@faas-platform/executor'
import type { Command } from 'commander'
import { type Cli, clientOf, outputOf } from '../context.js'
import type { Output } from '../output.js'

export function registerDoctor(program: Command, cli: Cli): void {
  program
    .command('doctor')
    .description('say what works on this machine, with evidence, and how to get the rest')
    .addHelpText('after', '\nExit code 0 when at least one runtime is usable and no usable one has a known escape, else 69.')
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const { config, warnings } = loadConfig([], cli.environment)
      const [runtimes, gateway] = await Promise.all([cli.platform.probe(config), askGateway(cli, command)])
      const host = { node: process.version, platform: `${process.platform}/${process.arch}`, root: process.getuid?.() === 0 }
      output.value({ host, gateway, warnings, runtimes: runtimes.map(plain) }, () => {
        output.line(`${output.style('bold', 'host')}     node ${host.node}, ${host.platform}, ${host.root ? 'root' : 'not root: runc, crun and gVisor need it; Docker works when its socket is yours'}`)
        output.line(`${output.style('bold', 'gateway')}  ${gateway}`)
        for (const warning of warnings) output.line(output.style('yellow', warning))
        for (const runtime of runtimes) showRuntime(runtime, output)
      })
      const usable = runtimes.filter(({ probe }) => probe.usable)
      cli.exitCode = usable.length > 0 && usable.every(({ probe }) => probe.vulnerabilities.length === 0) ? 0 : 69
    })
}

async function askGateway(cli: Cli, command: Command): Promise<string> {
  const { url } = command.optsWithGlobals<{ url: string }>()
  try {
    const health = await clientOf(command, 2_000).healthCheck({ signal: cli.signal })
    return `${url} is ${String(health['status'])}`
  } catch {
    return `none answers at ${url} (start one: faas gateway)` // a finding, not a failure
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
