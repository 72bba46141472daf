/** What every command gets: where the gateway is, how to print, and the end of it all. */
import type { Readable } from 'node:stream'
import { FaaSClient } from '@faas-platform/sdk'
import { type Command, Option } from 'commander'
import { Output, type Streams } from './output.js'
import type { Platform } from './platform.js'

export interface GlobalOptions {
  readonly url: string
  readonly apiKey?: string
  readonly json: boolean
}

export interface Cli {
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly streams: Streams & { readonly in: Readable & { readonly isTTY?: boolean } }
  readonly platform: Platform
  /** Aborted by the first Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal
  /** The guest's exit code, when a command passes one through. */
  exitCode: number
}

export const DEFAULT_URL = 'http://127.0.0.1:8080'

/** Accepted before and after the command's name. */
export function addGlobalOptions(command: Command): void {
  command.addOption(new Option('--url <url>', `gateway to talk to (FAAS_URL, else ${DEFAULT_URL})`).helpGroup('Global options:'))
  command.addOption(new Option('--api-key <key>', 'API key (better FAAS_API_KEY, which other users of this machine do not see)').helpGroup('Global options:'))
  command.addOption(new Option('--json', 'print JSON').helpGroup('Global options:'))
}

export function globalOptions(cli: Cli, command: Command): GlobalOptions {
  const given: Record<string, unknown> = {}
  // From the root inwards: what stands nearest to the command counts.
  for (const level of lineage(command)) Object.assign(given, pick(level.opts(), ['url', 'apiKey', 'json']))
  const apiKey = typeof given['apiKey'] === 'string' ? given['apiKey'] : cli.environment['FAAS_API_KEY']
  return {
    url: typeof given['url'] === 'string' ? given['url'] : (nonEmpty(cli.environment['FAAS_URL']) ?? DEFAULT_URL),
    json: given['json'] === true,
    ...(nonEmpty(apiKey) === undefined ? {} : { apiKey: apiKey ?? '' }),
  }
}

export function outputOf(cli: Cli, command: Command): Output {
  return new Output(cli.streams, globalOptions(cli, command).json, cli.environment)
}

export function clientOf(cli: Cli, command: Command, settings: { readonly timeoutMs?: number; readonly attempts?: number } = {}): FaaSClient {
  const options = globalOptions(cli, command)
  return new FaaSClient({
    baseUrl: options.url,
    cacheEnabled: false,
    ...(options.apiKey === undefined ? {} : { apiKey: options.apiKey }),
    ...(settings.timeoutMs === undefined ? {} : { timeout: settings.timeoutMs }),
    ...(settings.attempts === undefined ? {} : { maxRetries: settings.attempts }),
  })
}

/** `fields` without what is undefined, as exact optional properties want it. */
export function given<T extends object>(fields: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: Exclude<T[K], undefined> }
}

function lineage(command: Command): Command[] {
  return command.parent === null ? [command] : [...lineage(command.parent), command]
}

function pick(from: Readonly<Record<string, unknown>>, keys: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(keys.flatMap((key) => (from[key] === undefined ? [] : [[key, from[key]]])))
}

function nonEmpty(text: string | undefined): string | undefined {
  return text === undefined || text === '' ? undefined : text
}
