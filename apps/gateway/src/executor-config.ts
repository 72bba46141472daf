/** The executor's slice of the configuration. */
import type { Config } from '@faas-platform/config'
import { ISOLATION_CLASSES, mibToBytes, RUNTIME_ISOLATION, type RuntimeName } from '@faas-platform/core'
import type { ExecutorConfig } from '@faas-platform/executor'
import { defaultExecutorConfig } from '@faas-platform/executor'
import { areKeysDemanded } from './access/origin.js'

export function executorConfig(config: Config, host: { readonly cores: number; readonly memoryBytes: number }): ExecutorConfig {
  const usual = defaultExecutorConfig(host)
  return {
    ...usual,
    concurrencyMax: config.concurrencyMax,
    // Background work never takes every place: somebody who waits for an answer finds one.
    asyncConcurrencyMax: Math.max(1, Math.floor(config.concurrencyMax / 2)),
    queueMax: config.queueMax,
    principalConcurrencyMax: config.principalConcurrencyMax,
    principalOutstandingMax: config.principalOutstandingMax,
    asyncQueueMax: config.asyncQueueMax,
    runtimePreference: runtimePreference(config),
    refuseVulnerable: !config.allowVulnerableRuntimes,
    logStoreBytesMax: config.logsTotalBytesMax,
    recordTtlMs: config.recordsKeepMs,
    recordsMax: config.recordsMax,
    idempotencyTtlMs: config.idempotencyKeepMs,
    pool: {
      ...usual.pool,
      enabled: !config.disablePrewarm,
      memoryBytesMax: mibToBytes(config.poolMemoryMib),
      idleMsMax: config.poolIdleMs,
      readyMaxPerKey: config.poolSizeMax,
    },
    retention: {
      ...usual.retention,
      enabled: config.retainMs > 0,
      ttlMs: config.retainMs,
      bytesMax: config.retainBytesMax,
      entryBytesMax: config.retainEntryBytesMax,
      countMax: config.retainCountMax,
    },
    instances: { ...usual.instances, principalMax: config.instancesMax, idleMsMax: config.instanceIdleMs },
  }
}

/** Callers that need a key are not all trusted, so the strongest wall comes first. */
function runtimePreference(config: Config): readonly RuntimeName[] {
  const strongest = config.runtimeOrder === 'strongest' || (config.runtimeOrder === 'auto' && areKeysDemanded(config))
  if (!strongest) return config.runtimes
  return config.runtimes.toSorted((a, b) => strength(b) - strength(a))
}

function strength(runtime: RuntimeName): number {
  return ISOLATION_CLASSES.indexOf(RUNTIME_ISOLATION[runtime])
}
