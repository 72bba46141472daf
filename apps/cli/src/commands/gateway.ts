import { flagOf, SETTING_KEYS, SETTINGS, type SettingKey } from '@faas-platform/config'
import type { Command } from 'commander'
import type { Cli } from '../context.js'

/** Those of the section `client` are this command's own. */
const GATEWAY_KEYS = SETTING_KEYS.filter((key) => SETTINGS[key].section !== 'client')
export const GATEWAY_FLAGS: readonly string[] = GATEWAY_KEYS.map((key) => flagOf(SETTINGS[key]))

export function registerGateway(program: Command, cli: Cli): void {
  program
    .command('gateway')
    .description('serve the HTTP and WebSocket API until told to stop')
    .usage('[settings]')
    .allowUnknownOption() // the schema of the settings parses and reports them, all at once
    .argument('[settings...]')
    .addHelpText('after', () => `
Settings (each also as a variable, FAAS_ and the flag's name, and as a key of the file that --config names;
docs/configuration.md has them in full):
${GATEWAY_KEYS.map(settingLine).join('\n')}

Examples:
  faas gateway --port 9000 --data-dir /srv/faas
  faas keys create --name first && faas gateway --host 0.0.0.0`)
    .action(async (_settings: string[], _options: unknown, command: Command) => {
      cli.exitCode = await cli.platform.serve(command.args, cli.environment)
    })
}

const FLAG_WIDTH = 30

function settingLine(key: SettingKey): string {
  const { doc, defaultDoc } = SETTINGS[key]
  const [sentence = ''] = doc.split(/(?<=\.) /)
  return `  ${flagOf(SETTINGS[key]).padEnd(FLAG_WIDTH)} ${sentence.replace(/\.$/, '')} (default ${defaultDoc})`
}
