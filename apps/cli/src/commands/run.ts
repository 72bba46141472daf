import type { ExecuteOptions } from '@faas-platform/sdk'
import { type Command, Option } from 'commander'
import { type Cli, clientOf, given, outputOf } from '../context.js'
import { exitCodeOfResult } from '../exit-codes.js'
import { showRun, showTimeBudget } from '../guest-output.js'
import { localStream } from '../local.js'
import { collected, commandOf, durationMs, environmentPairs, positiveInteger, positiveNumber, sizeMib } from '../parse.js'
import { readStandardInput } from '../standard-input.js'

interface RunOptions {
  readonly image?: string
  readonly runtime?: string
  readonly isolation?: string
  readonly mode?: string
  readonly timeout: number
  readonly memory?: number
  readonly cpus?: number
  readonly pids?: number
  readonly disk?: number
  readonly env: Readonly<Record<string, string>>
  readonly label: Readonly<Record<string, string>>
  readonly workdir?: string
  readonly user?: string
  readonly network?: string
  readonly allow: readonly string[]
  readonly interactive?: boolean
  readonly detach?: boolean
  readonly local?: boolean
  readonly time?: boolean
}

export function registerRun(program: Command, cli: Cli): void {
  program
    .command('run')
    .description('run a command in a fresh sandbox; exits with its exit code')
    .argument('<command...>', 'argv, or one quoted shell line; everything after its first word belongs to it')
    .passThroughOptions()
    .option('-i, --image <reference>', 'image (default: the gateway\'s default image)')
    .option('-r, --runtime <name>', 'runc, crun, gvisor, docker or auto (default: the gateway\'s default runtime)')
    .addOption(new Option('--isolation <class>', 'the weakest isolation that is acceptable').choices(['process', 'kernel', 'emulation', 'hardware']))
    .addOption(new Option('-m, --mode <mode>', 'execution mode').choices(['ephemeral', 'cached', 'checkpointed', 'branched', 'persistent']))
    .addOption(new Option('-t, --timeout <time>', 'wall time').argParser(durationMs).default(30_000, '30s'))
    .option('--memory <size>', 'memory limit, such as 512m', sizeMib)
    .option('--cpus <cores>', 'CPU cores, may be a fraction', positiveNumber)
    .option('--pids <count>', 'processes and threads', positiveInteger)
    .option('--disk <size>', 'what may be written to the file system, such as 100m', sizeMib)
    .addOption(new Option('-e, --env <KEY=VALUE>', 'environment variable (repeatable); KEY alone takes the value from here').argParser(environmentPairs(cli.environment)).default({}, 'none'))
    .addOption(new Option('-l, --label <KEY=VALUE>', 'label kept with the record (repeatable)').argParser(environmentPairs({})).default({}, 'none'))
    .option('-w, --workdir <path>', 'working directory')
    .option('-u, --user <user[:group]>', 'user inside the sandbox')
    .addOption(new Option('--network <policy>', 'network policy').choices(['none', 'egress']))
    .addOption(new Option('--allow <cidr>', 'with --network egress, an address range that is blocked otherwise (repeatable)').argParser(collected).default([], 'none'))
    .option('--interactive', 'send this terminal\'s or pipe\'s input to the command')
    .addOption(new Option('-d, --detach', 'hand over and print the id; see `faas logs -f` and `faas wait`').conflicts(['local', 'interactive', 'time']))
    .option('--local', 'run in this process, without a gateway')
    .option('--time', 'print where each millisecond went')
    .addHelpText('after', `
Examples:
  faas run -- echo hello
  faas run 'echo hello && id -u'
  faas run -i python:3.11-slim -r gvisor -- python3 -c 'print(6 * 7)'
  faas run --memory 64m --network egress --timeout 2m -- wget -qO- https://example.com
  echo text | faas run --interactive -- wc -c
  id=$(faas run -d -- sleep 60); faas logs -f $id; faas wait $id`)
    .action(async (words: string[], options: RunOptions, command: Command) => {
      const output = outputOf(cli, command)
      const request = await toRequest(words, options, cli)
      if (options.detach === true) {
        const accepted = await clientOf(cli, command).submit(request)
        output.value({ request_id: accepted.requestId, status: accepted.status }, () => output.line(accepted.requestId))
        return
      }
      const events = options.local === true ? localStream(request, cli) : clientOf(cli, command).executeStream(request)
      const result = await showRun(events, output)
      if (options.time === true && !output.json) showTimeBudget(result, output)
      cli.exitCode = exitCodeOfResult(result)
    })
}

async function toRequest(words: readonly string[], options: RunOptions, cli: Cli): Promise<ExecuteOptions> {
  const { mode, memory, cpus, pids, disk, workdir, user, network, allow, runtime, isolation } = options
  const policy = allow.length > 0 ? { mode: network ?? 'egress', allow } : network
  return {
    command: commandOf(words),
    image: options.image ?? null,
    timeoutMs: options.timeout,
    envVars: options.env,
    signal: cli.signal,
    ...(Object.keys(options.label).length > 0 && { labels: options.label }),
    ...(options.interactive === true && { stdin: await readStandardInput(cli) }),
    // Choices were checked by their options; a runtime's name is checked by the gateway, which knows its own.
    ...(given({ mode, runtime, isolation, network: policy, memoryMb: memory, cpuCores: cpus, pids, diskMb: disk, workingDir: workdir, user }) as Partial<ExecuteOptions>),
  }
}
