import type { CreateInstanceOptions, Instance } from '@faas-platform/sdk'
import { type Command, Option } from 'commander'
import { type Cli, clientOf, given, outputOf } from '../context.js'
import { each } from '../each.js'
import { age } from '../format.js'
import type { Output } from '../output.js'
import { durationMs, environmentPairs, positiveNumber, sizeMib } from '../parse.js'

interface CreateOptions {
  readonly name?: string
  readonly runtime?: string
  readonly memory?: number
  readonly cpus?: number
  readonly env: Readonly<Record<string, string>>
  readonly network?: string
  readonly ttl?: number
  readonly idle?: number
}

export function registerInstances(program: Command, cli: Cli): void {
  const instance = program.command('instance').description('sandboxes that live on').addHelpText('after', '\nExample:\n  faas exec $(faas instance create alpine:latest --ttl 1h) -- uname -a')

  instance
    .command('create')
    .description('start an instance and print its id')
    .argument('<image>', 'image reference')
    .option('-n, --name <name>', 'name for people')
    .option('-r, --runtime <name>', 'runc, crun, gvisor, docker or auto (default: the gateway\'s default runtime)')
    .option('--memory <size>', 'memory limit, such as 512m', sizeMib)
    .option('--cpus <cores>', 'CPU cores, may be a fraction', positiveNumber)
    .addOption(new Option('-e, --env <KEY=VALUE>', 'environment of every command in it (repeatable)').argParser(environmentPairs(cli.environment)).default({}, 'none'))
    .addOption(new Option('--network <policy>', 'network policy').choices(['none', 'egress']))
    .option('--ttl <time>', 'stop after this long whatever it does', durationMs)
    .option('--idle <time>', 'stop after this long without an execution', durationMs)
    .addHelpText('after', '\nExample:\n  faas instance create python:3.11-slim --name lab --memory 256m --ttl 8h')
    .action(async (image: string, options: CreateOptions, command: Command) => {
      const output = outputOf(cli, command)
      const { name, runtime, memory, cpus, env, network, ttl, idle } = options
      const created = await clientOf(cli, command).instances.create({
        image, envVars: env, signal: cli.signal,
        ...(given({ name, runtime, network, memoryMb: memory, cpuCores: cpus, ttlMs: ttl, idleMs: idle }) as Partial<CreateInstanceOptions>),
      })
      output.value(created, () => output.line(created.id))
    })

  instance
    .command('ls')
    .description('list instances')
    .addHelpText('after', '\nExample:\n  faas instance ls')
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const instances = await clientOf(cli, command).instances.list({ signal: cli.signal })
      output.value(instances, () => instanceTable(instances, output, Date.now()))
    })

  for (const [name, description, verb] of [['stop', 'end the processes of instances; their records stay', 'stop'], ['rm', 'stop instances and forget them', 'delete']] as const) {
    instance
      .command(name)
      .description(description)
      .argument('<id...>', 'instance ids')
      .addHelpText('after', `\nExample:\n  faas instance ${name} 6f0cf1f2-7d8b-4f7c-9d1e-3f1f4f0e2c11`)
      .action(async (ids: string[], _options: unknown, command: Command) => {
        const output = outputOf(cli, command)
        const { instances } = clientOf(cli, command)
        const done: string[] = []
        await each(cli, output, ids, async (id) => {
          await instances[verb](id, { signal: cli.signal })
          done.push(id)
          if (!output.json) output.line(id)
        })
        if (output.json) output.value({ [name === 'rm' ? 'removed' : 'stopped']: done }, () => undefined)
      })
  }
}

export function instanceTable(instances: readonly Instance[], output: Output, nowMs: number): void {
  output.table(['INSTANCE', 'STATUS', 'RUNTIME', 'NAME', 'AGE', 'IMAGE'], instances.map((row) => [row.id, row.status, row.runtime, row.name ?? '-', age(row.created_at, nowMs), row.image]))
}
