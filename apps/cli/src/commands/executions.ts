/** `ps`, `logs`, `wait`, `cancel`: what already runs, or ran. */
import type { Execution, ExecutionSummary, Instance } from '@faas-platform/sdk'
import type { Command } from 'commander'
import { type Cli, clientOf, outputOf } from '../context.js'
import { each } from '../each.js'
import { exitCodeOfResult } from '../exit-codes.js'
import { age, commandLine, shortDuration } from '../format.js'
import { showEnd, write } from '../guest-output.js'
import { positiveInteger } from '../parse.js'
import { instanceTable } from './instances.js'

export function registerExecutions(program: Command, cli: Cli): void {
  registerPs(program, cli)
  registerLogs(program, cli)

  program
    .command('wait')
    .description('wait for an execution to end; exits with its exit code')
    .argument('<id>', 'execution id')
    .addHelpText('after', '\nExample:\n  id=$(faas run -d -- make test); faas wait $id && echo passed')
    .action(async (id: string, _options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const result = await clientOf(cli, command).executions.wait(id, { signal: cli.signal })
      showEnd(result, output)
      cli.exitCode = exitCodeOfResult(result)
    })

  program
    .command('cancel')
    .description('end executions and wait until they have ended')
    .argument('<id...>', 'execution ids')
    .addHelpText('after', '\nExamples:\n  faas cancel 6f0cf1f2-7d8b-4f7c-9d1e-3f1f4f0e2c11\n  faas cancel $(faas ps -q)')
    .action(async (ids: string[], _options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const client = clientOf(cli, command)
      const cancelled: Execution[] = []
      await each(cli, output, ids, async (id) => {
        cancelled.push(await client.executions.cancel(id, { signal: cli.signal }))
        if (!output.json) output.line(id)
      })
      if (output.json) output.value(cancelled, () => undefined)
    })
}

function registerPs(program: Command, cli: Cli): void {
  program
    .command('ps')
    .description('list running executions, newest first, and live instances')
    .option('-a, --all', 'finished executions too')
    .option('-q, --quiet', 'ids of executions only')
    .option('-n, --limit <count>', 'at most so many', positiveInteger, 20)
    .addHelpText('after', '\nExamples:\n  faas ps\n  faas ps -a --json | jq -r ".executions[].request_id"')
    .action(async (options: { all?: boolean; quiet?: boolean; limit: number }, command: Command) => {
      const output = outputOf(cli, command)
      const client = clientOf(cli, command)
      const [{ executions }, everyInstance] = await Promise.all([
        client.executions.list({ limit: options.limit, signal: cli.signal, ...(options.all === true ? {} : { state: 'active' }) }),
        options.quiet === true ? [] : client.instances.list({ signal: cli.signal }),
      ])
      const instances = everyInstance.filter(({ status }) => options.all === true || !OVER.has(status))
      output.value({ executions, instances }, () => {
        if (options.quiet === true) return executions.forEach(({ request_id: id }) => output.line(id))
        const now = Date.now()
        output.table(['EXECUTION', 'STATUS', 'RUNTIME', 'EXIT', 'TOOK', 'AGE', 'COMMAND'], executions.map((row) => executionRow(row, now)))
        if (instances.length === 0) return
        output.line()
        instanceTable(instances, output, now)
      })
    })
}

const OVER: ReadonlySet<Instance['status']> = new Set(['stopped', 'failed'])

function executionRow(row: ExecutionSummary, nowMs: number): string[] {
  const tookMs = row.ended_at === null ? null : Date.parse(row.ended_at) - Date.parse(row.started_at ?? row.created_at)
  return [
    row.request_id, row.status, row.runtime ?? '-', row.exit_code === null ? '-' : String(row.exit_code), tookMs === null ? '-' : shortDuration(tookMs),
    age(row.created_at, nowMs), commandLine(row.command),
  ]
}

function registerLogs(program: Command, cli: Cli): void {
  program
    .command('logs')
    .description('print the output of an execution')
    .argument('<id>', 'execution id')
    .option('-f, --follow', 'go on until it ends')
    .addHelpText('after', '\nExamples:\n  faas logs 6f0cf1f2-7d8b-4f7c-9d1e-3f1f4f0e2c11\n  faas logs -f $(faas run -d -- sh -c \'for i in 1 2 3; do echo $i; sleep 1; done\')')
    .action(async (id: string, options: { follow?: boolean }, command: Command) => {
      const output = outputOf(cli, command)
      const { executions } = clientOf(cli, command)
      if (options.follow !== true && !output.json) return void (await write(cli.streams.out, await executions.logs(id, { signal: cli.signal })))
      if (options.follow !== true) return output.value(await everyEntry(executions, id, cli.signal), () => undefined)
      for await (const event of executions.stream(id, { signal: cli.signal })) {
        if (output.json) output.line(JSON.stringify(event.type === 'end' ? { type: 'end', seq: event.seq, result: event.result.raw } : { ...event, bytes: undefined }))
        else if (event.type === 'stdout') await write(cli.streams.out, event.bytes)
        else if (event.type === 'stderr') await write(cli.streams.err, event.bytes)
      }
    })
}

async function everyEntry(executions: ReturnType<typeof clientOf>['executions'], id: string, signal: AbortSignal): Promise<unknown> {
  const entries: unknown[] = []
  for (let fromSeq = 0; ; ) {
    const page = await executions.logPage(id, { fromSeq, limit: 10_000, signal })
    entries.push(...page.entries)
    if (page.next_seq <= fromSeq || page.complete) return { ...page, entries }
    fromSeq = page.next_seq
  }
}
