import { type Command, Option } from 'commander'
import { type Cli, clientOf, given, outputOf } from '../context.js'
import { exitCodeOfResult } from '../exit-codes.js'
import { showRun } from '../guest-output.js'
import { commandOf, durationMs, environmentPairs } from '../parse.js'
import { readStandardInput } from '../standard-input.js'

interface ExecOptions {
  readonly timeout: number
  readonly env: Readonly<Record<string, string>>
  readonly workdir?: string
  readonly user?: string
  readonly interactive?: boolean
}

export function registerExec(program: Command, cli: Cli): void {
  program
    .command('exec')
    .description('run a command in a live instance; exits with its exit code')
    .argument('<instance>', 'instance id, or the id of the execution that made it')
    .argument('<command...>', 'argv, or one quoted shell line')
    .passThroughOptions()
    .addOption(new Option('-t, --timeout <time>', 'wall time').argParser(durationMs).default(30_000, '30s'))
    .addOption(new Option('-e, --env <KEY=VALUE>', 'environment variable (repeatable); KEY alone takes the value from here').argParser(environmentPairs(cli.environment)).default({}, 'none'))
    .option('-w, --workdir <path>', 'working directory')
    .option('-u, --user <user[:group]>', 'user inside the sandbox')
    .option('--interactive', 'send this terminal\'s or pipe\'s input to the command')
    .addHelpText('after', `
Examples:
  id=$(faas instance create alpine:latest)
  faas exec $id -- cat /etc/os-release
  echo text | faas exec --interactive $id 'cat > /tmp/text'`)
    .action(async (instance: string, words: string[], options: ExecOptions, command: Command) => {
      const output = outputOf(cli, command)
      const { timeout, env, workdir, user } = options
      const events = clientOf(cli, command).instances.execStream(instance, commandOf(words[0] === '--' ? words.slice(1) : words), {
        timeoutMs: timeout, envVars: env, signal: cli.signal, ...given({ workingDir: workdir, user }),
        ...(options.interactive === true && { stdin: await readStandardInput(cli) }),
      })
      cli.exitCode = exitCodeOfResult(await showRun(events, output))
    })
}
