/** What every route gets. */
import type { Config } from '@faas-platform/config'
import type { Clock, Ids, ImageStore, Ledger } from '@faas-platform/core'
import { mibToBytes } from '@faas-platform/core'
import type { Executor } from '@faas-platform/executor'
import type { WirePolicy } from '@faas-platform/protocol'
import type { FastifyBaseLogger } from 'fastify'
import type { KeyRing } from './access/keys.js'
import type { DisconnectWatch } from './disconnect.js'
import type { GatewayCounters } from './telemetry/counters.js'

/** The part of the executor that the gateway drives. */
export type ServedExecutor = Pick<
  Executor,
  | 'run' | 'submit' | 'get' | 'list' | 'cancel' | 'subscribe' | 'runtimes' | 'prewarm' | 'pools' | 'metrics' | 'invalidateImages' | 'releaseImage'
  | 'createInstance' | 'listInstances' | 'getInstance' | 'stopInstance' | 'deleteInstance' | 'execInInstance'
>

export interface GatewayContext {
  readonly executor: ServedExecutor
  readonly ledger: Ledger
  readonly config: Config
  readonly policy: WirePolicy
  /** By family name: `oci`, `docker`. */
  readonly imageStores: ReadonlyMap<string, ImageStore>
  readonly keys: KeyRing
  readonly keysDemanded: boolean
  readonly clock: Clock
  readonly ids: Ids
  readonly log: FastifyBaseLogger
  readonly disconnects: DisconnectWatch
  readonly counters: GatewayCounters
  readonly startedAtMs: number
  readonly version: string
}

export function wirePolicy(config: Config): WirePolicy {
  return {
    image: config.defaultImage,
    runtime: config.defaultRuntime,
    timeoutMs: config.defaultTimeoutMs,
    timeoutMsMax: config.timeoutMsMax,
    limits: {
      memoryBytes: mibToBytes(config.defaultMemoryMib), cpuCores: config.defaultCpuCores,
      pidsMax: config.defaultPids, writableBytesMax: mibToBytes(config.defaultDiskMib),
    },
    limitsMax: {
      memoryBytes: mibToBytes(config.memoryMibMax), cpuCores: config.cpuCoresMax,
      pidsMax: config.pidsMax, writableBytesMax: mibToBytes(config.diskMibMax),
    },
    network: config.defaultNetwork,
    outputBytes: config.outputBytesDefault,
    outputBytesMax: config.outputBytesMax,
    logBytesMax: config.logBytesMax,
  }
}
