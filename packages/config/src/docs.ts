/** The documentation page, generated from the schema. */
import type { Section } from './setting.js'
import { fileKeyOf, flagOf, SETTING_KEYS, SETTINGS } from './settings.js'

const SECTION_TITLES: Record<Section, string> = {
  server: 'Server',
  access: 'Access',
  runtimes: 'Runtimes and images',
  limits: 'Limits of one execution',
  admission: 'Admission',
  pool: 'Warm pool',
  retention: 'Retention',
  client: 'Command line client',
}

const INTRODUCTION = `# Configuration

<!-- Generated from packages/config/src/settings.ts; \`npx vitest run packages/config -u\` writes it again. -->

Every setting has one name in three spellings. A flag beats a variable, a variable beats the file, the file beats the default. An empty variable counts as unset.

\`\`\`sh
faas gateway --port 9000              # flag
FAAS_PORT=9000 faas gateway           # variable
echo 'port = 9000' > faas.toml        # file key
FAAS_CONFIG=faas.toml faas gateway
\`\`\`

A switch is turned on by its bare flag and off by its \`--no-\` form. A wrong value, an unknown flag or an unknown key in the file stops the start, and the message lists all of them; an unknown \`FAAS_\` variable is only warned about. 1 MiB = 1,048,576 bytes.
`

export function renderConfigurationDocs(): string {
  const parts = [INTRODUCTION]
  for (const [section, title] of Object.entries(SECTION_TITLES)) {
    parts.push(`## ${title}\n`)
    for (const key of SETTING_KEYS) {
      const setting = SETTINGS[key]
      if (setting.section !== section) continue
      const unit = setting.unit === undefined || setting.unit === 'count' ? '' : `, ${setting.unit}`
      const fileKey = key === 'configFile' ? '' : `, file key \`${fileKeyOf(setting)}\``
      parts.push(`### \`${setting.env}\`\n\n${setting.doc}\n\nFlag \`${flagOf(setting)}\`${fileKey}. Type: ${setting.typeName}${unit}. Default: ${setting.defaultDoc}.\n`)
    }
  }
  return parts.join('\n')
}
