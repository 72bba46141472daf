/**
 * From flags, variables and a file to one frozen value.
 *
 * I1. Precedence is flag > variable > file > default.
 * I2. Every problem is found before the parse fails; the error lists all of them.
 * I3. Nothing is read but what is passed in.
 */
import { FaasError } from '@faas-platform/core'
import { parse as parseToml } from 'smol-toml'
import type { HostFacts } from './setting.js'
import type { Config, SettingKey } from './settings.js'
import { fileKeyOf, flagOf, SETTING_KEYS, SETTINGS } from './settings.js'

export interface ConfigInput {
  /** Flags only, without program and command names. */
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly host: HostFacts
  /** Text of the configuration file. @throws when it can not be read */
  readFile(path: string): string
}

export type Source = 'flag' | 'env' | 'file' | 'default'

export interface ConfigIssue {
  /** The setting as the person wrote it: `--port`, `FAAS_PORT`, `port in faas.toml`. */
  readonly where: string
  readonly problem: string
}

export interface ParsedConfig {
  readonly config: Config
  readonly sources: Readonly<Record<SettingKey, Source>>
  /** Sentences for the log: variables that look like settings and are none. */
  readonly warnings: readonly string[]
}

/** Variables of the same prefix that other programs of the project read. */
const FOREIGN_ENV = new Set(['FAAS_GATEWAY_URL', 'FAAS_TEST_SEED'])

/** @throws FaasError `config/invalid` with every problem in `details.issues` */
export function parseConfig(input: ConfigInput): ParsedConfig {
  const issues: ConfigIssue[] = []
  const flags = readFlags(input.argv, issues)
  const file = readConfigFile(flags.get('configFile')?.raw ?? input.env[SETTINGS.configFile.env], input, issues)
  const values: Record<string, unknown> = {}
  const sources: Partial<Record<SettingKey, Source>> = {}

  for (const key of SETTING_KEYS) {
    const setting = SETTINGS[key]
    const given = flags.get(key) ?? fromEnv(setting.env, input.env) ?? file.get(key)
    if (given === undefined) {
      values[key] = setting.defaultValue(input.host)
      sources[key] = 'default'
      continue
    }
    const parsed = setting.parse(given.raw)
    sources[key] = given.source
    if (parsed.ok) values[key] = Object.freeze(parsed.value)
    else issues.push({ where: given.where, problem: `${parsed.problem}${setting.secret ? '' : `, not ${show(given.raw)}`}` })
  }

  const config = Object.freeze(values) as Config
  if (issues.length === 0) checkTogether(config, sources, issues)
  if (issues.length > 0) throw invalid(issues)
  return { config, sources: sources as Record<SettingKey, Source>, warnings: unknownVariables(input.env) }
}

interface Given {
  readonly raw: unknown
  readonly source: Source
  readonly where: string
}

const KEY_BY_FLAG = new Map(SETTING_KEYS.map((key) => [flagOf(SETTINGS[key]), key]))
const KEY_BY_FILE_KEY = new Map(SETTING_KEYS.filter((key) => key !== 'configFile').map((key) => [fileKeyOf(SETTINGS[key]), key]))

function readFlags(argv: readonly string[], issues: ConfigIssue[]): Map<SettingKey, Given> {
  const found = new Map<SettingKey, Given>()
  for (let index = 0; index < argv.length; index++) {
    const word = argv[index] ?? ''
    const equals = word.indexOf('=')
    const name = equals === -1 ? word : word.slice(0, equals)
    const negated = name.startsWith('--no-') ? KEY_BY_FLAG.get(`--${name.slice(5)}`) : undefined
    if (negated !== undefined && SETTINGS[negated].isSwitch && equals === -1) {
      found.set(negated, { raw: false, source: 'flag', where: name })
      continue
    }
    const key = KEY_BY_FLAG.get(name)
    if (key === undefined) {
      issues.push({ where: word, problem: `is not a known flag${suggestion(name, [...KEY_BY_FLAG.keys()])}` })
      continue
    }
    let raw: unknown
    if (equals !== -1) raw = word.slice(equals + 1)
    else if (SETTINGS[key].isSwitch) raw = true
    else {
      const next = argv[index + 1]
      if (next === undefined || next.startsWith('--')) {
        issues.push({ where: name, problem: 'needs a value' })
        continue
      }
      raw = next
      index++
    }
    found.set(key, { raw, source: 'flag', where: name })
  }
  return found
}

function fromEnv(name: string, env: ConfigInput['env']): Given | undefined {
  const raw = env[name]
  // An empty variable is how shells and compose files say "unset".
  return raw === undefined || raw === '' ? undefined : { raw, source: 'env', where: name }
}

function readConfigFile(path: unknown, input: ConfigInput, issues: ConfigIssue[]): Map<SettingKey, Given> {
  const found = new Map<SettingKey, Given>()
  if (typeof path !== 'string' || path === '') return found
  const record = parseFile(path, input, issues)
  for (const [fileKey, raw] of Object.entries(record)) {
    const key = KEY_BY_FILE_KEY.get(fileKey)
    const where = `${fileKey} in ${path}`
    if (key === undefined) issues.push({ where, problem: `is not a known setting${suggestion(fileKey, [...KEY_BY_FILE_KEY.keys()])}` })
    else found.set(key, { raw, source: 'file', where })
  }
  return found
}

function parseFile(path: string, input: ConfigInput, issues: ConfigIssue[]): Record<string, unknown> {
  if (!path.endsWith('.json') && !path.endsWith('.toml')) {
    issues.push({ where: path, problem: 'must end in .toml or .json' })
    return {}
  }
  try {
    const text = input.readFile(path)
    const value: unknown = path.endsWith('.json') ? JSON.parse(text) : parseToml(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
    issues.push({ where: path, problem: 'must hold one object' })
  } catch (thrown) {
    issues.push({ where: path, problem: `can not be read: ${thrown instanceof Error ? thrown.message : String(thrown)}` })
  }
  return {}
}

/** A default above its own maximum, asked for or not, would refuse every request that names no value. */
function checkTogether(config: Config, sources: Readonly<Partial<Record<SettingKey, Source>>>, issues: ConfigIssue[]): void {
  const pairs = [
    ['defaultTimeoutMs', 'timeoutMsMax'], ['defaultMemoryMib', 'memoryMibMax'], ['defaultCpuCores', 'cpuCoresMax'],
    ['defaultPids', 'pidsMax'], ['defaultDiskMib', 'diskMibMax'], ['outputBytesDefault', 'outputBytesMax'],
  ] as const
  for (const [low, high] of pairs) {
    if (config[low] <= config[high]) continue
    const blamed = sources[low] === 'default' ? high : low
    issues.push({ where: SETTINGS[blamed].env, problem: `${SETTINGS[low].env} (${config[low]}) must not be above ${SETTINGS[high].env} (${config[high]})` })
  }
  for (const origin of config.corsOrigins) {
    if (origin !== '*' && !isOrigin(origin)) issues.push({ where: SETTINGS.corsOrigins.env, problem: `must hold origins such as https://example.org, not ${show(origin)}` })
  }
  if (config.corsOrigins.includes('*') && config.requireKeys === false) {
    issues.push({ where: SETTINGS.corsOrigins.env, problem: 'must not allow every origin while no API key is demanded: any web page could run code here' })
  }
}

function isOrigin(text: string): boolean {
  return URL.canParse(text) && new URL(text).origin === text
}

function unknownVariables(env: ConfigInput['env']): string[] {
  const known = new Set<string>(SETTING_KEYS.map((key) => SETTINGS[key].env))
  return Object.keys(env)
    .filter((name) => name.startsWith('FAAS_') && !known.has(name) && !FOREIGN_ENV.has(name))
    .sort()
    .map((name) => `The variable ${name} is not a known setting${suggestion(name, [...known])}.`)
}

function invalid(issues: readonly ConfigIssue[]): FaasError {
  const count = issues.length === 1 ? 'One setting is' : `${issues.length} settings are`
  return new FaasError('config/invalid', {
    message: `${count} wrong: ${issues.map((issue) => `${issue.where} ${issue.problem}`).join('; ')}.`,
    hint: 'docs/configuration.md lists every setting.',
    details: { issues },
  })
}

function show(raw: unknown): string {
  const text = typeof raw === 'string' ? `"${raw}"` : (JSON.stringify(raw) ?? String(raw))
  return text.length > 80 ? `${text.slice(0, 77)}…` : text
}

/** ` (did you mean X?)` when one name is at most two edits away. */
function suggestion(name: string, names: readonly string[]): string {
  let best: { readonly name: string; readonly distance: number } | undefined
  for (const candidate of names) {
    const distance = editDistance(name, candidate)
    if (distance <= 2 && (best === undefined || distance < best.distance)) best = { name: candidate, distance }
  }
  return best === undefined ? '' : ` (did you mean ${best.name}?)`
}

function editDistance(a: string, b: string): number {
  if (Math.abs(a.length - b.length) > 2) return 3
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const current = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      current.push(Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, substitution))
    }
    previous = current
  }
  return previous[b.length] ?? 3
}
