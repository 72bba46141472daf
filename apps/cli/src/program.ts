/** The command tree. Commands get their surroundings passed in, so that tests drive them like a terminal does. */
import { Command, CommanderError } from 'commander'
import { registerBench } from './commands/bench.js'
import { registerCompletion } from './commands/completion.js'
import { registerDoctor } from './commands/doctor.js'
import { registerExec } from './commands/exec.js'
import { registerExecutions } from './commands/executions.js'
import { registerGateway } from './commands/gateway.js'
import { registerImages } from './commands/images.js'
import { registerInstances } from './commands/instances.js'
import { registerKeys } from './commands/keys.js'
import { registerPool } from './commands/pool.js'
import { registerRun } from './commands/run.js'
import { addGlobalOptions, type Cli } from './context.js'
import { exitCodeOf, Interruption } from './exit-codes.js'
import { Output } from './output.js'

export const VERSION = '0.1.0'

const GROUPS = [
  ['Run:', [registerRun, registerExec, registerExecutions, registerInstances]],
  ['Images and pools:', [registerImages, registerPool]],
  ['This machine:', [registerGateway, registerKeys, registerDoctor, registerBench, registerCompletion]],
] as const

export function buildProgram(cli: Cli): Command {
  const program = new Command('faas')
    .description('Run any command in an isolated sandbox, in milliseconds.')
    .version(VERSION)
    .enablePositionalOptions() // what follows the command of `run` belongs to the guest
    .showHelpAfterError('(add --help for the options and examples)')
    .configureOutput({
      writeOut: (text) => void cli.streams.out.write(text),
      writeErr: (text) => void cli.streams.err.write(text),
      getOutHelpWidth: () => cli.streams.out.columns ?? 100,
      getErrHelpWidth: () => cli.streams.err.columns ?? 100,
    })
    .exitOverride()
    .addHelpText('after', `
Exit codes: the guest's own for run, exec and wait; otherwise 64 wrong usage, 66 not found, 69 unavailable,
70 a bug, 71 not supported, 73 conflict or over a limit, 75 try again later, 77 not allowed, 124 out of time,
127 no such command in the image, 130 interrupted.

Examples:
  faas doctor                  what works on this machine
  faas gateway                 serve the HTTP API on 127.0.0.1:8080
  faas run 'echo hello'        run something`)
  addGlobalOptions(program)
  for (const [group, registers] of GROUPS) {
    program.commandsGroup(group)
    for (const register of registers) register(program, cli)
  }
  for (const command of program.commands) finish(command, program)
  return program
}

/** Commands of which every word that is not theirs belongs to somebody else. */
const WITHOUT_GLOBALS = new Set(['gateway', 'completion'])

function finish(command: Command, parent: Command): void {
  command.copyInheritedSettings(parent)
  if (!WITHOUT_GLOBALS.has(command.name())) addGlobalOptions(command)
  for (const child of command.commands) finish(child, command)
}

/** Runs one command line. @returns the process's exit code. */
export async function runProgram(argv: readonly string[], cli: Cli): Promise<number> {
  const program = buildProgram(cli)
  try {
    await program.parseAsync([...argv], { from: 'user' })
    return cli.exitCode
  } catch (thrown) {
    if (thrown instanceof CommanderError) return exitCodeOf(thrown) // commander has printed it
    if (cli.signal.aborted) return cli.signal.reason instanceof Interruption ? cli.signal.reason.exitCode : 130
    new Output(cli.streams, argv.includes('--json'), cli.environment).failure(thrown)
    return exitCodeOf(thrown)
  }
}
