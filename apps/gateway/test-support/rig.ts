/** A whole gateway over the in-memory driver, on a free port of loopback. */
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Config } from '@faas-platform/config'
import { parseConfig } from '@faas-platform/config'
import type { ImageStore, Ledger } from '@faas-platform/core'
import { silentLog, systemClock, systemIds } from '@faas-platform/core'
import type { ExecutorConfig } from '@faas-platform/executor'
import { defaultExecutorConfig, Executor } from '@faas-platform/executor'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { MemoryDriver } from '@faas-platform/testkit'
import { pino } from 'pino'
import type { Gateway } from '../src/build-gateway.js'
import { buildGateway } from '../src/build-gateway.js'

/** A parsed answer. Its shape is what the tests are about, so that no type is promised for it. */
export type Json = any

export interface RigOptions {
  readonly env?: Readonly<Record<string, string>>
  readonly executor?: Partial<ExecutorConfig>
  readonly driver?: MemoryDriver
  readonly logTo?: { write(line: string): void }
  /** The address that the gateway believes to listen on; it really listens on loopback. */
  readonly pretendHost?: string
}

export interface Rig extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly driver: MemoryDriver
  readonly executor: Executor
  readonly ledger: Ledger
  readonly gateway: Gateway
  readonly config: Config
  fetch(path: string, init?: RequestInit): Promise<Response>
  /** POST of JSON. */
  post(path: string, body: unknown, headers?: Readonly<Record<string, string>>): Promise<{ readonly status: number; readonly headers: Headers; readonly body: Record<string, Json> }>
  get(path: string, headers?: Readonly<Record<string, string>>): Promise<{ readonly status: number; readonly headers: Headers; readonly body: Json }>
}

export async function makeRig(options: RigOptions = {}): Promise<Rig> {
  const dataDir = await mkdtemp(join(tmpdir(), 'faas-gateway-test-'))
  const driver = options.driver ?? new MemoryDriver({ images: ['alpine:latest', 'python:3.11-slim', 'node:20-slim', 'node:18-alpine'] })
  const { config } = parseConfig({
    argv: [],
    env: { FAAS_DATA_DIR: dataDir, FAAS_PORT: '0', ...(options.pretendHost !== undefined && { FAAS_HOST: options.pretendHost }), ...options.env },
    host: { isRoot: true, homeDir: '/root', cpuCount: 2, totalMemoryBytes: 4 * 1024 ** 3, xdgDataHome: undefined },
    readFile: () => '',
  })
  const ledger = await openLedger({ dataDir, log: silentLog })
  const executor = new Executor({
    drivers: [driver], ledger, logStore: new FsLogStore({ dir: join(dataDir, 'logs') }), clock: systemClock, ids: systemIds, log: silentLog,
    config: { ...defaultExecutorConfig({ cores: 2, memoryBytes: 4 * 1024 ** 3 }), runtimePreference: ['memory'], ...options.executor },
  })
  await executor.start()
  const imageStores = new Map<string, ImageStore>([['memory', driver.images]])
  const log = options.logTo === undefined ? pino({ level: 'silent' }) : pino({ level: 'info' }, options.logTo)
  const gateway = await buildGateway({ executor, ledger, config, clock: systemClock, ids: systemIds, log, imageStores })
  await gateway.app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = gateway.app.server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const call = (path: string, init?: RequestInit): Promise<Response> => fetch(url + path, init)
  return {
    url, port, driver, executor, ledger, gateway, config,
    fetch: call,
    async post(path, body, headers = {}) {
      const response = await call(path, { method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
      return { status: response.status, headers: response.headers, body: (await response.json()) as Record<string, Json> }
    },
    async get(path, headers = {}) {
      const response = await call(path, { headers })
      return { status: response.status, headers: response.headers, body: await response.json() }
    },
    async [Symbol.asyncDispose]() {
      await executor.drain(0)
      await gateway.app.close()
      await ledger[Symbol.asyncDispose]()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}
