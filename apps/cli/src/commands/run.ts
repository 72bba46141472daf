import { FaasError } from '@faas-platform/core'
import { type ExecuteOptions, type ExecutionResult, FaaSResponseError, type StreamEvent } from '@faas-platform/sdk'
import { type Command, Option } from 'commander'
import { type Cli, clientOf, outputOf } from '../context.js'
import { localStream } from '../local.js'
import { commandOf, durationMs, environmentPairs, positiveNumber, sizeMib } from '../parse.js'
import type { Output } from '../output.js'

export interface RunOptions {
  readonly image?: string
  readonly runtime: string
  readonly mode?: string
  readonly timeout: number
  readonly memory?: number
  readonly cpus?: number
  readonly env: Readonly<Record<string, string>>
  readonly workdir?: string
  readonly user?: string
  readonly network?: string
  readonly interactive?: boolean
  readonly detach?: boolean
  readonly local?: boolean
  readonly time?: boolean
}

const STDIN_BYTES_MAX = 1024 * 1024

export function registerRun(program: Command, cli: Cli): void {
  program
    .command('run')
    .description('run a command in a fresh sandbox; exits with its exit code')
    .argument('<command...>', 'argv, or one quoted shell line; put -- before it when it has options of its own')
    .option('-i, --image <reference>', 'image (default: the gateway\'s default image)')
    .option('-r, --runtime <name>', 'runc, crun, gvisor, docker or auto', 'auto')
    .addOption(new Option('-m, --mode <mode>', 'execution mode').choices(['ephemeral', 'cached', 'checkpointed', 'branched', 'persistent']))
    .option('-t, --timeout <time>', 'wall time', durationMs, 30_000)
    .option('--memory <size>', 'memory limit, such as 512m', sizeMib)
    .option('--cpus <cores>', 'CPU cores, may be a fraction', positiveNumber)
    .option('-e, --env <KEY=VALUE>', 'environment variable (repeatable)', environmentPairs(cli.environment), {})
    .option('-w, --workdir <path>', 'working directory')
    .option('-u, --user <user[:group]>', 'user inside the sandbox')
    .addOption(new Option('--network <policy>', 'network policy').choices(['none', 'egress']))
    .option('--interactive', 'send this terminal\'s or pipe\'s input to the command')
    .option('-d, --detach', 'hand over and print the id; see `faas logs -f ID`')
    .option('--local', 'run in this process, without a gateway')
    .option('--time', 'print where each millisecond went')
    .addHelpText('after', `
Examples:
  faas run -- echo hello
  faas run 'echo hello && id -u'
  faas run -i python:3.11-slim -r gvisor -- python3 -c 'print(6 * 7)'
  faas run --memory 64m --network egress --timeout 2m -- wget -qO- https://example.com
  id=$(faas run -d -- sleep 60); faas logs -f $id`)
    .action(async (words: string[], options: RunOptions, command: Command) => {
      const output = outputOf(cli, command)
      const request = await toRequest(words, options, cli)
      if (options.detach === true) {
        const accepted = await clientOf(command).submit(request)
        output.value(accepted, () => output.line(accepted.requestId))
        return
      }
      const events = options.local === true ? localStream(request, cli) : clientOf(command).executeStream(request)
      const result = await show(events, output)
      if (options.time === true && !output.json) showTimeBudget(result, output)
      cli.exitCode = result.exitCode ?? 1
    })
}

async function toRequest(words: readonly string[], options: RunOptions, cli: Cli): Promise<ExecuteOptions> {
  return {
    command: commandOf(words),
    image: options.image ?? null,
    runtime: options.runtime as NonNullable<ExecuteOptions['runtime']>,
    timeoutMs: options.timeout,
    envVars: options.env,
    signal: cli.signal,
    ...(options.mode === undefined ? {} : { mode: options.mode as NonNullable<ExecuteOptions['mode']> }),
    ...(options.memory === undefined ? {} : { memoryMb: options.memory }),
    ...(options.cpus === undefined ? {} : { cpuCores: options.cpus }),
    ...(options.workdir === undefined ? {} : { workingDir: options.workdir }),
    ...(options.user === undefined ? {} : { user: options.user }),
    ...(options.network === undefined ? {} : { network: options.network as 'none' | 'egress' }),
    ...(options.interactive === true ? { stdin: await readStdin(cli) } : {}),
  }
}

async function readStdin(cli: Cli): Promise<Uint8Array> {
  const chunks: Buffer[] = []
  let total = 0
  for await (const chunk of cli.streams.in as AsyncIterable<Buffer>) {
    total += chunk.length
    if (total > STDIN_BYTES_MAX) {
      throw new FaasError('request/too-large', { message: `The input is larger than ${STDIN_BYTES_MAX} bytes.`, hint: 'Put large input into an instance with `faas exec`, which streams.' })
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

/** Passes output through as it comes; with `--json` only the result is printed. */
export async function show(events: AsyncIterable<StreamEvent>, output: Output): Promise<ExecutionResult> {
  for await (const event of events) {
    if (event.type === 'stdout' && !output.json) await write(output.streams.out, event.bytes)
    if (event.type === 'stderr' && !output.json) await write(output.streams.err, event.bytes)
    if (event.type !== 'end') continue
    if (output.json) output.line(JSON.stringify(event.result.raw, null, 2))
    else if (event.result.outcome !== 'exited' && event.result.error !== undefined) output.note(`${output.style('yellow', 'faas:')} ${event.result.error}`)
    return event.result
  }
  throw new FaaSResponseError('The stream ended without a result.', { code: 'client/invalid-response', status: 200 })
}

/** A reader that is slower than the guest slows the guest, through the socket's own back-pressure. */
function write(stream: NodeJS.WritableStream, bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => stream.write(bytes, (error) => (error === undefined || error === null ? resolve() : reject(error))))
}

function showTimeBudget(result: ExecutionResult, output: Output): void {
  const phases = Object.entries(result.timeBudgetMs ?? {})
  const total = phases.reduce((sum, [, ms]) => sum + ms, 0)
  output.note(output.style('dim', `${result.start ?? ''} start on ${result.runtimeUsed ?? 'unknown runtime'}, ${total.toFixed(2)} ms:`))
  for (const [phase, ms] of phases) output.note(output.style('dim', `  ${phase.padEnd(22)} ${ms.toFixed(2).padStart(9)} ms`))
}
