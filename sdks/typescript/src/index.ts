export { FaaSClient, FaaSClient as default, type CodeOptions, type SnapshotOptions, type SubmitOptions } from './client.js'
export {
  FaaSApiError, FaaSAuthError, FaaSConnectionError, FaaSError, FaaSRateLimitError, FaaSResponseError, FaaSTimeoutError,
  type FaaSErrorFields,
} from './errors.js'
export type { ExecutionQuery, Executions, LogQuery } from './executions.js'
export { FunctionBuilder, type FunctionDefinition } from './function-builder.js'
export type { BuildImageOptions, ImageCallOptions, Images } from './images.js'
export type { Instances } from './instances.js'
export type { CreateKeyOptions, Keys } from './keys.js'
export { ClientMetrics } from './metrics.js'
export { run } from './run.js'
export {
  ExecutionMode, Runtime,
  type CallOptions, type ClientConfig, type ClientEvents, type ClientMetricsSnapshot, type CodeImages, type CreateInstanceOptions, type ExecuteOptions,
  type ExecutionResult, type InstanceExecOptions, type PlacementOptions, type PullProgress, type StreamEvent,
} from './types.js'
export { executeBody, toResult as executionResultOf } from './wire.js'
export type {
  Execution, ExecutionPage, ExecutionState, ExecutionSummary, Health, Image, Instance, Key, LogEntry, LogPage, NewKey, Pool, Prewarmed, PulledImage,
  RuntimeInfo, ServerMetrics,
} from './wire-types.js'
