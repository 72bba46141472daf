/** What a setting is: one entry of the schema, and the parsers of its types. */
import { Secret } from './secret.js'

export type Unit = 'ms' | 'bytes' | 'MiB' | 'cores' | 'count'
export type Section = 'server' | 'access' | 'runtimes' | 'limits' | 'admission' | 'pool' | 'retention' | 'client'

/** Facts about the process that some defaults depend on; given in, so that the parser reads nothing by itself. */
export interface HostFacts {
  readonly isRoot: boolean
  readonly homeDir: string
  readonly cpuCount: number
  readonly totalMemoryBytes: number
  /** `XDG_DATA_HOME`, when set. */
  readonly xdgDataHome: string | undefined
}

export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string }

export interface Setting<T> {
  readonly section: Section
  /** Environment variable; the flag and the file key follow from it. */
  readonly env: string
  /** How the type reads in the documentation. */
  readonly typeName: string
  readonly unit?: Unit
  readonly doc: string
  readonly secret: boolean
  /** A flag without a value means `true`, and `--no-…` means `false`. */
  readonly isSwitch: boolean
  /** How the default reads in the documentation. */
  readonly defaultDoc: string
  defaultValue(host: HostFacts): T
  /** `raw` is text from a flag or variable, or any JSON/TOML value from the file. */
  parse(raw: unknown): Parsed<T>
}

interface Common<T> {
  readonly section: Section
  readonly env: string
  readonly doc: string
  readonly default: T | ((host: HostFacts) => T)
  /** Needed when the default is a function. */
  readonly defaultDoc?: string
}

export function integerSetting(options: Common<number> & { readonly unit: Unit; readonly min: number; readonly max: number }): Setting<number> {
  return { ...base(options, 'integer'), unit: options.unit, parse: (raw) => parseNumber(raw, options, 'a whole number') }
}

export function numberSetting(options: Common<number> & { readonly unit: Unit; readonly min: number; readonly max: number }): Setting<number> {
  return { ...base(options, 'number'), unit: options.unit, parse: (raw) => parseNumber(raw, options, 'a number') }
}

export function textSetting(options: Common<string>): Setting<string> {
  return { ...base(options, 'text'), parse: parseText }
}

export function optionalTextSetting(options: Common<string | null>): Setting<string | null> {
  return { ...base(options, 'text'), parse: parseText }
}

export function secretSetting(options: Common<Secret | null>): Setting<Secret | null> {
  return {
    ...base(options, 'secret text'),
    secret: true,
    parse: (raw) => {
      const parsed = parseText(raw)
      return parsed.ok ? { ok: true, value: new Secret(parsed.value) } : parsed
    },
  }
}

export function listSetting(options: Common<readonly string[]>): Setting<readonly string[]> {
  return {
    ...base(options, 'list, comma-separated'),
    parse: (raw) => {
      if (typeof raw === 'string') return { ok: true, value: raw.split(',').map((item) => item.trim()).filter((item) => item !== '') }
      if (Array.isArray(raw) && raw.every((item) => typeof item === 'string')) return { ok: true, value: raw }
      return { ok: false, problem: 'must be a list of texts' }
    },
  }
}

export function choiceSetting<const T extends string>(options: Common<T> & { readonly choices: readonly T[] }): Setting<T> {
  return { ...base(options, options.choices.map((choice) => `\`${choice}\``).join(', ')), parse: (raw) => parseChoice(raw, options.choices) }
}

export function choiceListSetting<const T extends string>(options: Common<readonly T[]> & { readonly choices: readonly T[] }): Setting<readonly T[]> {
  const items = listSetting({ ...options, default: [] })
  return {
    ...base(options, `list of ${options.choices.map((choice) => `\`${choice}\``).join(', ')}`),
    parse: (raw) => {
      const list = items.parse(raw)
      if (!list.ok) return list
      const value: T[] = []
      for (const item of list.value) {
        const parsed = parseChoice(item, options.choices)
        if (!parsed.ok) return parsed
        value.push(parsed.value)
      }
      return { ok: true, value }
    },
  }
}

export function switchSetting(options: Common<boolean>): Setting<boolean> {
  return { ...base(options, '`true`, `false`'), isSwitch: true, parse: parseBoolean }
}

/** A switch of which any text but a denial means `true`, as its original readers took it. */
export function presenceSetting(options: Common<boolean>): Setting<boolean> {
  return {
    ...base(options, '`true`, `false`'),
    isSwitch: true,
    parse: (raw) => {
      const parsed = parseBoolean(raw)
      return !parsed.ok && typeof raw === 'string' ? { ok: true, value: true } : parsed
    },
  }
}

/** A switch that also knows "decide by the circumstances". */
export function autoSwitchSetting(options: Common<boolean | 'auto'>): Setting<boolean | 'auto'> {
  return {
    ...base(options, '`auto`, `true`, `false`'),
    isSwitch: true,
    parse: (raw) => (raw === 'auto' ? { ok: true, value: 'auto' } : parseBoolean(raw)),
  }
}

function base<T>(options: Common<T>, typeName: string): Omit<Setting<T>, 'parse'> {
  const given = options.default
  return {
    section: options.section,
    env: options.env,
    typeName,
    doc: options.doc,
    secret: false,
    isSwitch: false,
    defaultDoc: options.defaultDoc ?? describeDefault(given),
    defaultValue: (host) => (isFunction(given) ? given(host) : given),
  }
}

function isFunction<T>(given: T | ((host: HostFacts) => T)): given is (host: HostFacts) => T {
  return typeof given === 'function'
}

function describeDefault(value: unknown): string {
  if (value === null) return 'unset'
  if (Array.isArray(value)) return value.length === 0 ? 'empty' : `\`${value.join(',')}\``
  return `\`${String(value)}\``
}

function parseText(raw: unknown): Parsed<string> {
  if (typeof raw !== 'string') return { ok: false, problem: 'must be text' }
  if (raw.trim() === '') return { ok: false, problem: 'must not be empty' }
  if (raw.includes('\0')) return { ok: false, problem: 'must not hold a NUL character' }
  return { ok: true, value: raw.trim() }
}

function parseChoice<T extends string>(raw: unknown, choices: readonly T[]): Parsed<T> {
  const found = choices.find((choice) => choice === raw)
  return found === undefined ? { ok: false, problem: `must be one of ${choices.join(', ')}` } : { ok: true, value: found }
}

function parseBoolean(raw: unknown): Parsed<boolean> {
  if (typeof raw === 'boolean') return { ok: true, value: raw }
  if (typeof raw === 'string') {
    const word = raw.trim().toLowerCase()
    if (['1', 'true', 'yes', 'on'].includes(word)) return { ok: true, value: true }
    if (['0', 'false', 'no', 'off'].includes(word)) return { ok: true, value: false }
  }
  return { ok: false, problem: 'must be true or false' }
}

function parseNumber(raw: unknown, bounds: { readonly min: number; readonly max: number }, what: string): Parsed<number> {
  // `Number('')` is 0 and `Number('0x10')` is 16: neither is what a person means here.
  const value = typeof raw === 'number' ? raw : typeof raw === 'string' && /^-?\d+(\.\d+)?$/.test(raw.trim()) ? Number(raw) : Number.NaN
  if (!Number.isFinite(value) || (what === 'a whole number' && !Number.isSafeInteger(value))) return { ok: false, problem: `must be ${what}` }
  if (value < bounds.min || value > bounds.max) return { ok: false, problem: `must be between ${bounds.min} and ${bounds.max}` }
  return { ok: true, value }
}
