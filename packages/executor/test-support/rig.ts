/** An executor over the in-memory driver, ledger and log store. */
import { asId, GIB, MIB, silentLog, systemClock, systemIds, type Clock, type ExecuteRequest, type Ledger, type LogStore, type PrincipalId, type RuntimeDriver } from '@faas-platform/core'
import { BASE_REFERENCE, MemoryDriver } from '@faas-platform/testkit'
import { defaultExecutorConfig, Executor, type ExecutorConfig, type RunContext } from '../src/index.js'
import { MemoryLedger, MemoryLogStore } from './memory-ledger.js'

export const ALICE = asId<PrincipalId>('alice')
export const BOB = asId<PrincipalId>('bob')

export type ConfigChanges = { readonly [K in keyof ExecutorConfig]?: ExecutorConfig[K] extends readonly unknown[] | number | boolean ? ExecutorConfig[K] : Partial<ExecutorConfig[K]> }

export function testConfig(changes: ConfigChanges = {}): ExecutorConfig {
  const base = defaultExecutorConfig({ cores: 2, memoryBytes: 8 * GIB })
  return {
    ...base,
    runtimePreference: ['memory'],
    ...changes,
    pool: { ...base.pool, ...changes.pool },
    teardown: { ...base.teardown, retryMs: 1, ...changes.teardown },
    retention: { ...base.retention, ...changes.retention },
    instances: { ...base.instances, ...changes.instances },
  } as ExecutorConfig
}

export interface Rig extends AsyncDisposable {
  readonly executor: Executor
  readonly driver: MemoryDriver
  readonly ledger: MemoryLedger
  readonly logStore: MemoryLogStore
}

export interface RigOptions {
  readonly config?: ConfigChanges
  readonly driver?: MemoryDriver
  readonly drivers?: readonly RuntimeDriver[]
  readonly ledger?: MemoryLedger
  readonly logStore?: MemoryLogStore
  readonly clock?: Clock
}

export async function makeRig(options: RigOptions = {}): Promise<Rig> {
  const clock = options.clock ?? systemClock
  const driver = options.driver ?? new MemoryDriver({ clock })
  const ledger = options.ledger ?? new MemoryLedger()
  const logStore = options.logStore ?? new MemoryLogStore()
  const executor = makeExecutor({ drivers: options.drivers ?? [driver], ledger, logStore, clock, config: options.config ?? {} })
  await executor.start()
  return { executor, driver, ledger, logStore, [Symbol.asyncDispose]: () => executor[Symbol.asyncDispose]() }
}

export function makeExecutor(options: { readonly drivers: readonly RuntimeDriver[]; readonly ledger: Ledger; readonly logStore: LogStore; readonly clock?: Clock; readonly config?: ConfigChanges }): Executor {
  return new Executor({
    drivers: options.drivers, ledger: options.ledger, logStore: options.logStore, clock: options.clock ?? systemClock, ids: systemIds,
    log: silentLog, config: testConfig(options.config),
  })
}

export function request(command: string, changes: Partial<ExecuteRequest> = {}): ExecuteRequest {
  return {
    argv: ['/bin/sh', '-c', command], image: BASE_REFERENCE, runtime: 'auto', isolationFloor: 'none', mode: 'ephemeral', timeoutMs: 20_000,
    limits: { memoryBytes: 64 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB }, network: { mode: 'none', allowCidrs: [] },
    env: {}, outputBytesMax: 64 * 1024, logBytesMax: 16 * MIB, rerunnable: true, labels: {}, ...changes,
  }
}

export function as(principal: PrincipalId, changes: Partial<RunContext> = {}): RunContext {
  return { principal, signal: new AbortController().signal, ...changes }
}

export function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes)
}
