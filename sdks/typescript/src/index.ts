export { default, FaaSClient, run, type CodeOptions, type ExecutionQuery } from './client.js'
export {
  FaaSApiError, FaaSAuthError, FaaSConnectionError, FaaSError, FaaSRateLimitError, FaaSResponseError, FaaSTimeoutError,
  type FaaSErrorFields,
} from './errors.js'
export { executeBody, toResult as executionResultOf } from './wire.js'
export { FunctionBuilder, type FunctionDefinition } from './function-builder.js'
export { ClientMetrics } from './metrics.js'
export {
  ExecutionMode, Runtime,
  type CallOptions, type ClientConfig, type ClientEvents, type ClientMetricsSnapshot, type ExecuteOptions, type ExecutionResult, type PullProgress, type StreamEvent,
} from './types.js'
