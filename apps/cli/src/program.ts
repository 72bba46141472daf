/** The command tree. Commands get their surroundings passed in, so that tests drive them like a terminal does. */
import { Command, CommanderError } from 'commander'
import { registerBench } from './commands/bench.js'
import { registerDoctor } from './commands/doctor.js'
import { registerExecutions } from './commands/executions.js'
import { registerGateway } from './commands/gateway.js'
import { registerImages } from './commands/images.js'
import { registerKeys } from './commands/keys.js'
import { registerRun } from './commands/run.js'
import { type Cli, DEFAULT_URL } from './context.js'
import { exitCodeOf } from './exit-codes.js'
import { Output } from './output.js'

export const VERSION = '0.1.0'

export function buildProgram(cli: Cli): Command {
  const program = new Command('faas')
    .description('run any command in an isolated sandbox, in milliseconds')
    .version(VERSION)
    .option('--url <url>', 'gateway to talk to (FAAS_URL)', cli.environment['FAAS_URL'] ?? DEFAULT_URL)
    .option('--api-key <key>', 'API key (better: FAAS_API_KEY, which other users of this machine do not see)', cli.environment['FAAS_API_KEY'])
    .option('--json', 'print JSON')
    .showHelpAfterError('(add --help for the options and examples)')
    .configureOutput({ writeOut: (text) => void cli.streams.out.write(text), writeErr: (text) => void cli.streams.err.write(text) })
    .exitOverride()
    .addHelpText('after', `
Exit codes: the guest's own for run and exec; 64 wrong usage, 66 not found, 69 unavailable, 70 a bug,
75 try again later, 77 not allowed, 124 out of time, 130 cancelled.

Start here:
  faas doctor                  what works on this machine
  faas gateway                 serve the HTTP API on 127.0.0.1:8080
  faas run 'echo hello'        run something`)
  for (const register of [registerRun, registerExecutions, registerImages, registerKeys, registerDoctor, registerBench, registerGateway]) register(program, cli)
  for (const command of program.commands) inheritSettings(command, program)
  return program
}

function inheritSettings(command: Command, parent: Command): void {
  command.copyInheritedSettings(parent)
  for (const child of command.commands) inheritSettings(child, command)
}

/** Runs one command line. @returns the process's exit code. */
export async function runProgram(argv: readonly string[], cli: Cli): Promise<number> {
  const program = buildProgram(cli)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return cli.exitCode
  } catch (thrown) {
    if (thrown instanceof CommanderError) return exitCodeOf(thrown) // commander has printed it
    if (cli.signal.aborted) return 130
    new Output(cli.streams, argv.includes('--json'), cli.environment).failure(thrown)
    return exitCodeOf(thrown)
  }
}
