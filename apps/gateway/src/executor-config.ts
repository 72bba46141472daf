/** The executor's slice of the configuration. */
import type { Config } from '@faas-platform/config'
import { mibToBytes } from '@faas-platform/core'
import type { ExecutorConfig } from '@faas-platform/executor'
import { defaultExecutorConfig } from '@faas-platform/executor'

export function executorConfig(config: Config, host: { readonly cores: number; readonly memoryBytes: number }): ExecutorConfig {
  const usual = defaultExecutorConfig(host)
  return {
    ...usual,
    concurrencyMax: config.concurrencyMax,
    queueMax: config.queueMax,
    principalConcurrencyMax: config.principalConcurrencyMax,
    principalOutstandingMax: config.principalOutstandingMax,
    asyncQueueMax: config.asyncQueueMax,
    runtimePreference: config.runtimes,
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
