import type { PlacementOptions } from '@faas-platform/sdk'
import { type Command, InvalidArgumentError } from 'commander'
import { formatBytes } from '@faas-platform/core'
import { type Cli, clientOf, given, outputOf } from '../context.js'
import { sizeMib } from '../parse.js'

export function registerPool(program: Command, cli: Cli): void {
  const pool = program.command('pool').description('sandboxes that are ready before anybody asks').addHelpText('after', '\nExample:\n  faas pool warm python:3.11-slim -n 4')

  pool
    .command('ls')
    .description('list every line of the warm pool')
    .addHelpText('after', '\nExample:\n  faas pool ls')
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const pools = await clientOf(cli, command).poolsDetailed({ signal: cli.signal })
      output.value(pools, () =>
        output.table(['RUNTIME', 'READY', 'MAKING', 'FLOOR', 'TARGET', 'HITS', 'MISSES', 'NETWORK', 'IDLE MEMORY', 'IMAGE'], pools.map((row) => [
          row.runtime, ...[row.ready, row.creating, row.floor, row.target, row.hits, row.misses].map(String), row.network, formatBytes(row.idle_memory_bytes), row.image,
        ])))
    })

  pool
    .command('warm')
    .description('make sandboxes of an image ready and keep at least so many; 0 lets them go')
    .argument('<image>', 'image reference')
    .option('-n, --count <sandboxes>', 'how many', count, 1)
    .option('-r, --runtime <name>', 'runc, crun, gvisor, docker or auto (default: the gateway\'s default runtime)')
    .option('--memory <size>', 'memory limit; requests only find sandboxes of their own limits', sizeMib)
    .addHelpText('after', '\nExample:\n  faas pool warm python:3.11-slim -n 4 -r gvisor')
    .action(async (image: string, options: { count: number; runtime?: string; memory?: number }, command: Command) => {
      const output = outputOf(cli, command)
      const warmed = await clientOf(cli, command, { timeoutMs: 300_000 }).prewarm(image, options.count, {
        signal: cli.signal, ...(given({ runtime: options.runtime, memoryMb: options.memory }) as PlacementOptions),
      })
      output.value(warmed, () => {
        output.line(`${warmed.ready} ready on ${warmed.runtime}, at least ${warmed.wanted} kept`)
        if (warmed.limited_by !== null) output.note(`limited by: ${warmed.limited_by}`)
      })
    })
}

function count(text: string): number {
  if (!/^\d{1,4}$/.test(text)) throw new InvalidArgumentError('Use a whole number, 0 or above.')
  return Number(text)
}
