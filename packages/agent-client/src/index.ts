export { AgentClient } from './agent-client.js'
export type {
  AgentHealth, ExecInfo, FileOptions, ReseedOptions, ReseedReport, WriteFileOptions,
} from './agent-client.js'
export type { AgentInfo, CallOptions, ConnectOptions } from './connection.js'
export { AgentExec } from './agent-exec.js'
export type { AgentExecExit } from './agent-exec.js'
export type { ExecOptions, ResourceLimit } from './exec-request.js'
export type { FileEntry } from './file-entry.js'
export type { AgentStream } from './transport.js'
