/** A real gateway over the in-memory driver, and the `faas` command driven as a terminal does. */
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable, Writable } from 'node:stream'
import { loadConfig } from '@faas-platform/config'
import { type ImageStore, type Ledger, silentLog, systemClock, systemIds } from '@faas-platform/core'
import { defaultExecutorConfig, Executor, probeDriver } from '@faas-platform/executor'
import { buildGateway } from '@faas-platform/gateway'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { MemoryDriver } from '@faas-platform/testkit'
import { pino } from 'pino'
import type { Cli } from '../context.js'
import { Interruption } from '../exit-codes.js'
import type { Platform } from '../platform.js'
import { runProgram } from '../program.js'

export interface Said {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface FaasOptions {
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
  /** Both outputs are a terminal of so many columns. */
  readonly columns?: number
  readonly onOutput?: (text: string, interrupt: () => void) => void
}

export interface Rig extends AsyncDisposable {
  readonly url: string
  readonly dataDir: string
  readonly driver: MemoryDriver
  readonly ledger: Ledger
  faas(argv: readonly string[], options?: FaasOptions): Promise<Said>
  /** Standard output of a command that must succeed. */
  say(...argv: string[]): Promise<string>
}

export async function makeRig(options: { readonly env?: Readonly<Record<string, string>> } = {}): Promise<Rig> {
  const dataDir = await mkdtemp(join(tmpdir(), 'faas-cli-test-'))
  const { config } = loadConfig([], { FAAS_DATA_DIR: dataDir, FAAS_PORT: '0', ...options.env })
  const driver = new MemoryDriver({ images: ['alpine:latest', 'python:3.11-slim'] })
  const ledger = await openLedger({ dataDir, log: silentLog })
  const executor = makeExecutor(driver, ledger, dataDir)
  await executor.start()
  const imageStores = new Map<string, ImageStore>([['memory', driver.images]])
  const gateway = await buildGateway({ executor, ledger, config, clock: systemClock, ids: systemIds, log: pino({ level: 'silent' }), imageStores })
  await gateway.app.listen({ host: '127.0.0.1', port: 0 })
  const url = `http://127.0.0.1:${(gateway.app.server.address() as AddressInfo).port}`

  const faas = (argv: readonly string[], call: FaasOptions = {}): Promise<Said> => drive(argv, { FAAS_URL: url, FAAS_DATA_DIR: dataDir, ...call.env }, call)
  return {
    url, dataDir, driver, ledger, faas,
    async say(...argv) {
      const said = await faas(argv)
      if (said.code !== 0) throw new Error(`faas ${argv.join(' ')} ended with ${said.code}: ${said.err}`)
      return said.out
    },
    async [Symbol.asyncDispose]() {
      await executor.drain(0)
      await gateway.app.close()
      await ledger[Symbol.asyncDispose]()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

/** One command line, without a gateway of its own. */
export async function drive(argv: readonly string[], environment: Readonly<Record<string, string>>, options: FaasOptions = {}): Promise<Said> {
  const controller = new AbortController()
  const interrupt = (): void => controller.abort(new Interruption('SIGINT'))
  const written = { out: '', err: '' }
  const sink = (name: 'out' | 'err'): Writable & { isTTY?: boolean; columns?: number } =>
    Object.assign(
      new Writable({
        write(chunk: Buffer, _encoding, done) {
          written[name] += chunk.toString()
          options.onOutput?.(chunk.toString(), interrupt)
          done()
        },
      }),
      options.columns === undefined ? {} : { isTTY: true, columns: options.columns },
    )
  const cli: Cli = { environment, streams: { in: Readable.from(options.stdin === undefined ? [] : [options.stdin]), out: sink('out'), err: sink('err') }, platform, signal: controller.signal, exitCode: 0 }
  const code = await runProgram(argv, cli)
  return { code, ...written }
}

/** As main.ts has it, over the in-memory driver. */
const platform: Platform = {
  openLedger: (dataDir) => openLedger({ dataDir, log: silentLog, access: 'shared' }),
  async open(config) {
    const ledger = await openLedger({ dataDir: config.dataDir, log: silentLog })
    const executor = makeExecutor(new MemoryDriver(), ledger, config.dataDir)
    await executor.start()
    return {
      executor,
      async [Symbol.asyncDispose]() {
        await executor.drain(0)
        await ledger[Symbol.asyncDispose]()
      },
    }
  },
  async probe() {
    const driver = new MemoryDriver()
    return [{ name: driver.name, isolation: driver.features.isolation, features: driver.features, probe: await probeDriver(driver, silentLog, AbortSignal.timeout(10_000)), probedAtMs: 0 }]
  },
  serve: (argv) => Promise.resolve(argv.length), // what it was given is what the test looks at
  toolsDir: () => join(tmpdir(), 'faas-no-tools-here'),
}

function makeExecutor(driver: MemoryDriver, ledger: Ledger, dataDir: string): Executor {
  return new Executor({
    drivers: [driver], ledger, logStore: new FsLogStore({ dir: join(dataDir, 'logs') }), clock: systemClock, ids: systemIds, log: silentLog,
    config: { ...defaultExecutorConfig({ cores: 2, memoryBytes: 4 * 1024 ** 3 }), runtimePreference: ['memory'] },
  })
}
