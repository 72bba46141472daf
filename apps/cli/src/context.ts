/** What every command gets: where the gateway is, how to print, and the end of it all. */
import { FaaSClient } from '@faas-platform/sdk'
import type { Command } from 'commander'
import { Output, type Streams } from './output.js'
import type { Platform } from './platform.js'

export interface GlobalOptions {
  readonly url: string
  readonly apiKey?: string
  readonly json?: boolean
}

export interface Cli {
  readonly environment: Readonly<Record<string, string | undefined>>
  readonly streams: Streams & { readonly in: NodeJS.ReadableStream }
  readonly platform: Platform
  /** Aborted by the first Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal
  /** The guest's exit code, when a command passes one through. */
  exitCode: number
}

export const DEFAULT_URL = 'http://127.0.0.1:8080'

export function globalOptions(command: Command): GlobalOptions {
  return command.optsWithGlobals<GlobalOptions>()
}

export function outputOf(cli: Cli, command: Command): Output {
  return new Output(cli.streams, globalOptions(command).json === true, cli.environment)
}

export function clientOf(command: Command, timeoutMs?: number): FaaSClient {
  const options = globalOptions(command)
  return new FaaSClient({
    baseUrl: options.url,
    cacheEnabled: false,
    ...(options.apiKey === undefined ? {} : { apiKey: options.apiKey }),
    ...(timeoutMs === undefined ? {} : { timeout: timeoutMs }),
  })
}
