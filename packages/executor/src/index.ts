export { defaultExecutorConfig, type ExecutorConfig, type InstancesConfig, type PoolConfig, type RetentionConfig, type TeardownConfig } from './config.js'
export { Executor } from './executor.js'
export { DURATION_BOUNDS_MS, type ExecutionCount, type HistogramData, type MetricsSnapshot, type PoolCounters } from './metrics.js'
export type {
  CreateInstanceRequest, DrainReport, ExecutionView, ExecutorOptions, InstanceView, ListPage, ListQuery, PoolReport, PrewarmReport, PrewarmSpec,
  RetainedExecution, RunContext, RuntimeStatus, StartReport, SubmitContext,
} from './types.js'
export { probeDriver } from './runtimes.js'
