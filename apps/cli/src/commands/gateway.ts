import { SETTING_KEYS, SETTINGS } from '@faas-platform/config'
import type { Command } from 'commander'
import type { Cli } from '../context.js'

export function registerGateway(program: Command, cli: Cli): void {
  program
    .command('gateway')
    .description('serve the HTTP and WebSocket API until told to stop')
    .allowUnknownOption() // the schema of the settings parses and reports them, all at once
    .allowExcessArguments()
    .argument('[settings...]', 'every setting of docs/configuration.md as a flag, such as --port 9000')
    .addHelpText('after', () => `
Settings (each also as a variable and in a configuration file):
${SETTING_KEYS.map((key) => `  --${SETTINGS[key].env.slice('FAAS_'.length).toLowerCase().replaceAll('_', '-')}`.padEnd(34) + SETTINGS[key].doc.split('. ')[0]).join('\n')}

Example:
  faas gateway --port 9000 --data-dir /srv/faas`)
    .action(async (_settings: string[], _options: unknown, command: Command) => {
      cli.exitCode = await cli.platform.serve(command.args, cli.environment)
    })
}
