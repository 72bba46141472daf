/** The executor's slice of the configuration, with its defaults. Every queue, buffer and wait has its limit here. */
import { GIB, KIB, MIB, type RuntimeName } from '@faas-platform/core'

export interface ExecutorConfig {
  /** Commands that may run at once, over all principals. */
  readonly concurrencyMax: number
  /** Synchronous requests that may wait for their turn. */
  readonly queueMax: number
  readonly principalConcurrencyMax: number
  /** Running and waiting together. */
  readonly principalOutstandingMax: number
  readonly asyncConcurrencyMax: number
  /** Asynchronous executions accepted and not ended. */
  readonly asyncQueueMax: number
  /** Bytes of input that accepted asynchronous requests may hold in memory. */
  readonly asyncQueueBytesMax: number
  /** A request that the gateway did not survive this often is reported as interrupted instead of run again. */
  readonly asyncAttemptsMax: number
  /** First is best. Runtimes that are not named are not chosen by `auto`. */
  readonly runtimePreference: readonly RuntimeName[]
  /** Refuse runtimes with known escapes. Only for a host where every caller is trusted may this be false. */
  readonly refuseVulnerable: boolean
  /** Between SIGTERM and SIGKILL. */
  readonly killGraceMs: number
  /** After SIGKILL, for the last output; then the sandbox is given up. */
  readonly killWaitMs: number
  readonly createTimeoutMs: number
  /** How long a resolved tag is trusted before the image store is asked again. */
  readonly imageCacheMs: number
  readonly statsTimeoutMs: number
  readonly diskCheckMs: number
  /** A log up to this size stays in memory and in the ledger; a larger one becomes a file. */
  readonly logMemoryBytesMax: number
  readonly logStoreBytesMax: number
  readonly recordTtlMs: number
  readonly recordsMax: number
  readonly idempotencyTtlMs: number
  /** Between two rounds of expiry of records, logs, keys and instances. */
  readonly housekeepingMs: number
  readonly teardown: TeardownConfig
  readonly pool: PoolConfig
  readonly retention: RetentionConfig
  readonly instances: InstancesConfig
}

export interface TeardownConfig {
  readonly concurrencyMax: number
  /** Over it, a finished execution keeps its place until its sandbox is gone: load can not outrun teardown. */
  readonly backlogMax: number
  readonly attemptsMax: number
  readonly retryMs: number
}

export interface PoolConfig {
  /** False: sandboxes are made on request only, and `prewarm` is refused. */
  readonly enabled: boolean
  /** Memory of all idle sandboxes. */
  readonly memoryBytesMax: number
  /** Estimate for an idle sandbox before one was measured. */
  readonly idleMemoryBytesGuess: number
  readonly creationConcurrencyMax: number
  readonly readyMaxPerKey: number
  readonly keysMax: number
  /** An idle sandbox above the floor goes after this long without demand. */
  readonly idleMsMax: number
  /** A sandbox that is busy when idle is frozen after waiting this long: under load none is, and none has to be woken. */
  readonly freezeAfterMs: number
  /** Multiplies arrival rate × creation time. */
  readonly safety: number
  readonly rateWindowMs: number
  /** How long a refill leaves the processor to the command that took a sandbox. */
  readonly refillDelayMs: number
  readonly tickMs: number
  readonly backoffMs: number
  readonly backoffMsMax: number
}

export interface RetentionConfig {
  readonly enabled: boolean
  readonly ttlMs: number
  readonly countMax: number
  readonly bytesMax: number
  /** End states larger than this are not kept. */
  readonly entryBytesMax: number
}

export interface InstancesConfig {
  readonly principalMax: number
  readonly max: number
  readonly ttlMs: number | null
  readonly idleMsMax: number | null
}

export function defaultExecutorConfig(host: { readonly cores: number; readonly memoryBytes: number }): ExecutorConfig {
  const concurrencyMax = Math.max(16, host.cores * 8)
  return {
    concurrencyMax,
    queueMax: 1024,
    principalConcurrencyMax: concurrencyMax,
    principalOutstandingMax: 1024,
    asyncConcurrencyMax: Math.max(2, Math.floor(concurrencyMax / 2)),
    asyncQueueMax: 10_000,
    asyncQueueBytesMax: 256 * MIB,
    asyncAttemptsMax: 20,
    runtimePreference: ['gvisor', 'runc', 'crun', 'docker', 'firecracker', 'qemu'],
    refuseVulnerable: true,
    killGraceMs: 100,
    killWaitMs: 2_000,
    createTimeoutMs: 60_000,
    imageCacheMs: 5_000,
    statsTimeoutMs: 50,
    diskCheckMs: 500,
    logMemoryBytesMax: 64 * KIB,
    logStoreBytesMax: 2 * GIB,
    recordTtlMs: 7 * 86_400_000,
    recordsMax: 200_000,
    idempotencyTtlMs: 86_400_000,
    housekeepingMs: 30_000,
    teardown: { concurrencyMax: Math.max(2, host.cores), backlogMax: 64, attemptsMax: 3, retryMs: 500 },
    pool: {
      enabled: true,
      memoryBytesMax: Math.min(2 * GIB, Math.floor(host.memoryBytes / 4)),
      idleMemoryBytesGuess: 32 * MIB,
      creationConcurrencyMax: host.cores + 1,
      readyMaxPerKey: 16,
      keysMax: 64,
      idleMsMax: 60_000,
      freezeAfterMs: 1_000,
      safety: 1.5,
      rateWindowMs: 10_000,
      refillDelayMs: 5,
      tickMs: 1_000,
      backoffMs: 500,
      backoffMsMax: 60_000,
    },
    retention: { enabled: true, ttlMs: 15 * 60_000, countMax: 64, bytesMax: 512 * MIB, entryBytesMax: 128 * MIB },
    instances: { principalMax: 32, max: 256, ttlMs: null, idleMsMax: 3_600_000 },
  }
}
