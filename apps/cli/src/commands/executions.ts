/** `exec`, `ps`, `logs`, `cancel`: what already runs. */
import type { Command } from 'commander'
import { type Cli, clientOf, outputOf } from '../context.js'
import { commandOf, durationMs, environmentPairs, positiveInteger } from '../parse.js'

export function registerExecutions(program: Command, cli: Cli): void {
  program
    .command('exec')
    .description('run a command in a live instance; exits with its exit code')
    .argument('<instance>', 'instance id, or the id of the execution that made it')
    .argument('<command...>', 'argv, or one quoted shell line')
    .option('-t, --timeout <time>', 'wall time', durationMs, 30_000)
    .option('-e, --env <KEY=VALUE>', 'environment variable (repeatable)', environmentPairs(cli.environment), {})
    .addHelpText('after', '\nExample:\n  faas exec 6f0c… -- cat /etc/os-release')
    .action(async (instance: string, words: string[], options: { timeout: number; env: Record<string, string> }, command: Command) => {
      const output = outputOf(cli, command)
      const result = await clientOf(command).instances.exec(instance, commandOf(words), { timeoutMs: options.timeout, envVars: options.env, signal: cli.signal })
      output.value(result.raw, () => {
        cli.streams.out.write(result.stdout)
        cli.streams.err.write(result.stderr)
      })
      cli.exitCode = result.exitCode ?? 1
    })

  program
    .command('ps')
    .description('list executions, newest first, and live instances')
    .option('-a, --all', 'finished executions too')
    .option('-n, --limit <count>', 'at most so many', positiveInteger, 20)
    .addHelpText('after', '\nExample:\n  faas ps -a --json | jq -r ".executions[].request_id"')
    .action(async (options: { all?: boolean; limit: number }, command: Command) => {
      const output = outputOf(cli, command)
      const client = clientOf(command)
      const [page, instances] = await Promise.all([
        client.executions.list({ limit: options.limit, signal: cli.signal, ...(options.all === true ? {} : { state: 'active' }) }),
        client.instances.list({ signal: cli.signal }),
      ])
      const executions = Array.isArray(page['executions']) ? (page['executions'] as Record<string, unknown>[]) : []
      output.value({ executions, instances }, () => {
        output.table(['EXECUTION', 'STATUS', 'RUNTIME', 'EXIT', 'MS', 'CREATED', 'COMMAND'], executions.map((row) => cells(row, ['request_id', 'status', 'runtime', 'exit_code', 'duration_ms', 'created_at', 'command'])))
        if (instances.length === 0) return
        output.line()
        output.table(['INSTANCE', 'STATUS', 'NAME', 'IMAGE', 'CREATED'], (instances as Record<string, unknown>[]).map((row) => cells(row, ['id', 'status', 'name', 'image', 'created_at'])))
      })
    })

  program
    .command('logs')
    .description('print the output of an execution')
    .argument('<id>', 'execution id')
    .option('-f, --follow', 'go on until it ends')
    .action(async (id: string, options: { follow?: boolean }, command: Command) => {
      const output = outputOf(cli, command)
      const client = clientOf(command)
      if (options.follow !== true) {
        const text = await client.executions.logs(id, { signal: cli.signal })
        output.value({ id, log: text }, () => cli.streams.out.write(text))
        return
      }
      for await (const event of client.executions.stream(id, { signal: cli.signal })) {
        if (output.json) output.line(JSON.stringify(event.type === 'end' ? event.result.raw : { ...event, bytes: undefined }))
        else if (event.type === 'stdout') cli.streams.out.write(event.bytes)
        else if (event.type === 'stderr') cli.streams.err.write(event.bytes)
        if (event.type === 'end') cli.exitCode = event.result.exitCode ?? 1
      }
    })

  program
    .command('cancel')
    .description('end executions')
    .argument('<id...>', 'execution ids')
    .action(async (ids: string[], _options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      for (const id of ids) await clientOf(command).executions.cancel(id, { signal: cli.signal })
      output.value({ cancelled: ids }, () => output.line(ids.join('\n')))
    })
}

function cells(row: Readonly<Record<string, unknown>>, keys: readonly string[]): string[] {
  return keys.map((key) => {
    const value = row[key]
    if (Array.isArray(value)) return value.join(' ')
    return value === null || value === undefined ? '-' : String(value)
  })
}
