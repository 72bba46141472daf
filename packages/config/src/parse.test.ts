import { isFaasError } from '@faas-platform/core'
import { describe, expect, it } from 'vitest'
import type { ConfigInput, ConfigIssue } from './parse.js'
import { parseConfig } from './parse.js'
import { fileKeyOf, flagOf, SETTING_KEYS, SETTINGS } from './settings.js'

const HOST = { isRoot: true, homeDir: '/root', cpuCount: 2, totalMemoryBytes: 8 * 1024 ** 3, xdgDataHome: undefined }

function parse(given: Partial<ConfigInput> & { readonly files?: Readonly<Record<string, string>> }) {
  return parseConfig({
    argv: [], env: {}, host: HOST,
    readFile: (path) => {
      const text = given.files?.[path]
      if (text === undefined) throw new Error(`no such file ${path}`)
      return text
    },
    ...given,
  })
}

function issuesOf(given: Parameters<typeof parse>[0]): readonly ConfigIssue[] {
  try {
    parse(given)
  } catch (thrown) {
    if (isFaasError(thrown, 'config/invalid')) return thrown.details?.['issues'] as ConfigIssue[]
    throw thrown
  }
  throw new Error('The parse was expected to fail.')
}

describe('the configuration parser', () => {
  it('gives every setting its default when nothing is set', () => {
    const { config, sources, warnings } = parse({})
    expect(config.host).toBe('127.0.0.1')
    expect(config.port).toBe(8080)
    expect(config.dataDir).toBe('/var/lib/faas')
    expect(config.bodyBytesMax).toBe(2_097_152)
    expect(config.requireKeys).toBe('auto')
    expect(new Set(Object.values(sources))).toEqual(new Set(['default']))
    expect(warnings).toEqual([])
  })

  it('takes a flag before a variable, a variable before the file and the file before the default', () => {
    const files = { 'faas.toml': 'port = 1001\nqueue_typo_guard = 1\n' }
    const good = { 'faas.toml': 'port = 1001\nhost = "::1"\ndrain_ms = 5\n' }
    const env = { FAAS_CONFIG: 'faas.toml', FAAS_PORT: '1002', FAAS_DRAIN_MS: '7' }
    const parsed = parse({ argv: ['--port', '1003'], env, files: good })
    expect([parsed.config.port, parsed.config.drainMs, parsed.config.host]).toEqual([1003, 7, '::1'])
    expect([parsed.sources.port, parsed.sources.drainMs, parsed.sources.host, parsed.sources.logLevel]).toEqual(['flag', 'env', 'file', 'default'])
    expect(issuesOf({ env, files })).toEqual([{ where: 'queue_typo_guard in faas.toml', problem: 'is not a known setting' }])
  })

  it('reads JSON files and native lists, numbers and booleans in them', () => {
    const files = { 'f.json': JSON.stringify({ cors_origins: ['https://a.example'], port: 9, require_keys: true, runtimes: ['runc'] }) }
    const { config } = parse({ argv: ['--config=f.json'], files })
    expect(config.corsOrigins).toEqual(['https://a.example'])
    expect(config.port).toBe(9)
    expect(config.requireKeys).toBe(true)
    expect(config.runtimes).toEqual(['runc'])
  })

  it('lists every problem at once', () => {
    const issues = issuesOf({
      argv: ['--prot', '1', '--host'],
      env: { FAAS_PORT: '70000', FAAS_LOG_LEVEL: 'loud', FAAS_DRAIN_MS: '0x10', FAAS_RUNTIMES: 'runc,podman', FAAS_CONFIG: 'gone.toml' },
    })
    expect(issues.map((issue) => issue.where).sort()).toEqual(['--host', '--prot', '1', 'FAAS_DRAIN_MS', 'FAAS_LOG_LEVEL', 'FAAS_PORT', 'FAAS_RUNTIMES', 'gone.toml'])
    expect(issues.find((issue) => issue.where === '--prot')?.problem).toContain('--port')
    expect(issues.find((issue) => issue.where === 'FAAS_PORT')?.problem).toBe('must be between 0 and 65535, not "70000"')
  })

  it('warns about an unknown FAAS_ variable and names the likely one', () => {
    expect(parse({ env: { FAAS_PROT: '1', FAAS_GATEWAY_URL: 'x', PATH: '/bin' } }).warnings).toEqual([
      'The variable FAAS_PROT is not a known setting (did you mean FAAS_PORT?).',
    ])
  })

  it('counts an empty variable as unset', () => {
    expect(parse({ env: { FAAS_PORT: '' } }).config.port).toBe(8080)
  })

  it('turns a switch on by its bare flag and off by its --no- form', () => {
    expect(parse({ argv: ['--require-keys'] }).config.requireKeys).toBe(true)
    expect(parse({ argv: ['--no-require-keys'] }).config.requireKeys).toBe(false)
    expect(parse({ argv: ['--disable-prewarm', '--port', '1'] }).config.disablePrewarm).toBe(true)
    expect(parse({ env: { FAAS_DISABLE_PREWARM: 'please' } }).config.disablePrewarm).toBe(true)
    expect(parse({ env: { FAAS_DISABLE_PREWARM: '0' } }).config.disablePrewarm).toBe(false)
  })

  it('refuses a default above its maximum and blames the one that was set', () => {
    expect(issuesOf({ env: { FAAS_MAX_TIMEOUT_MS: '10' } })[0]?.where).toBe('FAAS_MAX_TIMEOUT_MS')
    expect(issuesOf({ env: { FAAS_DEFAULT_MEMORY_MB: '999999' } })[0]?.where).toBe('FAAS_DEFAULT_MEMORY_MB')
  })

  it('refuses every web origin together with no keys', () => {
    expect(issuesOf({ env: { FAAS_CORS_ORIGINS: '*', FAAS_REQUIRE_KEYS: 'false' } })).toHaveLength(1)
    expect(issuesOf({ env: { FAAS_CORS_ORIGINS: 'example.org' } })).toHaveLength(1)
  })

  it('freezes the value', () => {
    const { config } = parse({})
    expect(Object.isFrozen(config)).toBe(true)
    expect(() => Object.assign(config, { port: 1 })).toThrow(TypeError)
  })

  it('never prints a secret, not even in an error', () => {
    const { config } = parse({ env: { FAAS_API_KEY: 'hunter22' } })
    expect(config.apiKey?.reveal()).toBe('hunter22')
    expect(JSON.stringify(config)).not.toContain('hunter22')
    expect(`${String(config.apiKey)}`).toBe('[redacted]')
    expect(JSON.stringify(issuesOf({ env: { FAAS_API_KEY: 'hunter\u000022' } }))).not.toContain('hunter')
  })

  it('takes the data directory of an ordinary user from XDG', () => {
    expect(parse({ host: { ...HOST, isRoot: false, homeDir: '/home/a' } }).config.dataDir).toBe('/home/a/.local/share/faas')
    expect(parse({ host: { ...HOST, isRoot: false, xdgDataHome: '/x' } }).config.dataDir).toBe('/x/faas')
  })
})

describe('the schema', () => {
  it('has distinct variables, flags and file keys, and a sentence for each setting', () => {
    for (const name of [(key: (typeof SETTING_KEYS)[number]) => SETTINGS[key].env, (key: (typeof SETTING_KEYS)[number]) => flagOf(SETTINGS[key]), (key: (typeof SETTING_KEYS)[number]) => fileKeyOf(SETTINGS[key])]) {
      expect(new Set(SETTING_KEYS.map(name)).size).toBe(SETTING_KEYS.length)
    }
    for (const key of SETTING_KEYS) expect(SETTINGS[key].doc).toMatch(/\.$/)
  })

  it('has defaults that its own parsers accept', () => {
    for (const key of SETTING_KEYS) {
      const value: unknown = SETTINGS[key].defaultValue(HOST)
      if (value !== null) expect(SETTINGS[key].parse(value), key).toEqual({ ok: true, value })
    }
  })
})
