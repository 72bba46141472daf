import { existsSync } from 'node:fs'
import { asId, FaasError, type KeyRecord, type Ledger, systemClock, systemIds } from '@faas-platform/core'
import { loadConfig } from '@faas-platform/config'
import { createKey, DEFAULT_SCOPES, revokeKey, type Scope, SCOPES } from '@faas-platform/gateway'
import { type Command, InvalidArgumentError } from 'commander'
import { type Cli, outputOf } from '../context.js'
import { each } from '../each.js'
import { durationMs } from '../parse.js'

interface CreateOptions {
  readonly name: string
  readonly scopes: readonly Scope[]
  readonly principal?: string
  readonly expires?: number
}

/** Keys live in the data directory, so these commands run where the gateway runs; a running one sees the change. */
export function registerKeys(program: Command, cli: Cli): void {
  const keys = program.command('keys').description('API keys of this machine\'s gateway')
    .addHelpText('after', '\nExample:\n  export FAAS_API_KEY=$(faas keys create --name laptop)')

  keys
    .command('create')
    .option('--data-dir <path>', 'data directory (FAAS_DATA_DIR)')
    .description('make a key and print it, once')
    .option('-n, --name <name>', 'what it is for', 'unnamed')
    .option('-s, --scopes <list>', `of ${SCOPES.join(', ')}`, parseScopes, [...DEFAULT_SCOPES])
    .option('-p, --principal <id>', 'share executions and limits with the other keys of this principal')
    .option('--expires <time>', 'stop working after this time, such as 720h', durationMs)
    .addHelpText('after', '\nExample:\n  faas keys create --name ci --scopes execute,read --expires 720h')
    .action(async (options: CreateOptions, command: Command) => {
      const output = outputOf(cli, command)
      const { key, record } = await withLedger(cli, command, (ledger) =>
        createKey(
          ledger,
          {
            name: options.name,
            scopes: options.scopes,
            ...(options.principal === undefined ? {} : { principal: options.principal }),
            ...(options.expires === undefined ? {} : { expiresAtMs: systemClock.nowMs() + options.expires }),
          },
          { clock: systemClock, ids: systemIds },
        ),
        'make', // the first key comes before the first start on an address that demands keys
      )
      output.value({ key, ...shown(record) }, () => {
        output.line(key)
        output.note(`Key ${record.id} (${record.scopes.join(', ')}). It is not shown again.`)
      })
    })

  keys
    .command('ls')
    .option('--data-dir <path>', 'data directory (FAAS_DATA_DIR)')
    .description('list keys')
    .addHelpText('after', '\nExample:\n  faas keys ls')
    .action(async (_options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const records = (await withLedger(cli, command, (ledger) => ledger.listKeys())).map(shown)
      output.value(records, () =>
        output.table(['ID', 'NAME', 'KEY', 'SCOPES', 'STATE', 'LAST USED'], records.map((key) => [key.id, key.name, `${key.prefix}…`, key.scopes.join(','), key.state, key.last_used_at ?? 'never'])))
    })

  keys
    .command('revoke')
    .option('--data-dir <path>', 'data directory (FAAS_DATA_DIR)')
    .description('end keys; a running gateway refuses them within a second')
    .argument('<id...>', 'key ids as `faas keys ls` shows them')
    .addHelpText('after', '\nExample:\n  faas keys revoke 78eda85f-d26b-4514-9e43-328539bd8067')
    .action(async (ids: string[], _options: unknown, command: Command) => {
      const output = outputOf(cli, command)
      const revoked: string[] = []
      await each(cli, output, ids, async (id) => {
        await withLedger(cli, command, (ledger) => revokeKey(ledger, asId(id), systemClock.nowMs()))
        revoked.push(id)
        if (!output.json) output.line(id)
      })
      if (output.json) output.value({ revoked }, () => undefined)
    })
}

function parseScopes(text: string): readonly Scope[] {
  const wanted = text.split(',').map((scope) => scope.trim())
  const unknown = wanted.filter((scope) => !SCOPES.some((known) => known === scope))
  if (unknown.length > 0) throw new InvalidArgumentError(`Unknown: ${unknown.join(', ')}. There are ${SCOPES.join(', ')}.`)
  return wanted as Scope[]
}

async function withLedger<T>(cli: Cli, command: Command, use: (ledger: Ledger) => Promise<T>, absent: 'refuse' | 'make' = 'refuse'): Promise<T> {
  const { dataDir } = command.optsWithGlobals<{ dataDir?: string }>()
  const { config } = loadConfig(dataDir === undefined ? [] : ['--data-dir', dataDir], cli.environment)
  if (absent === 'refuse' && !existsSync(config.dataDir)) {
    throw new FaasError('store/unavailable', { message: `There is no data directory ${config.dataDir}.`, hint: 'Name that of the gateway with --data-dir or FAAS_DATA_DIR, or make it first.' })
  }
  const ledger = await cli.platform.openLedger(config.dataDir)
  try {
    return await use(ledger)
  } catch (cause) {
    if (cause instanceof FaasError) throw cause
    throw new FaasError('store/unavailable', { message: `The ledger in ${config.dataDir} can not be used.`, cause })
  } finally {
    await ledger[Symbol.asyncDispose]()
  }
}

function shown(record: KeyRecord) {
  const time = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString())
  const expired = record.expiresAtMs !== null && record.expiresAtMs <= systemClock.nowMs()
  return {
    id: record.id, name: record.name, prefix: record.prefix, scopes: record.scopes, principal: record.principal,
    state: record.revokedAtMs !== null ? 'revoked' : expired ? 'expired' : 'active',
    created_at: time(record.createdAtMs), expires_at: time(record.expiresAtMs), last_used_at: time(record.lastUsedAtMs),
  }
}
