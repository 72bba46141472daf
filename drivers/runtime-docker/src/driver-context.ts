/** What the parts of the driver share. */
import type { Clock, Ids, LogSink } from '@faas-platform/core'
import type { EngineClient } from './engine-client.js'

export interface DriverContext {
  readonly client: EngineClient
  readonly clock: Clock
  readonly ids: Ids
  readonly log: LogSink
  /** In every name and label on the engine: two gateways on one engine never touch each other's. */
  readonly dataDirId: string
  /** Holds a directory per version of the agent. */
  readonly agentParentDir: string
  /** The engine's OCI runtime. */
  readonly runtime: string
  /** See `ContainerContext`. */
  readonly seccompProfile: string | undefined
  /** Leaves out the better ways; absent: all are tried. */
  readonly agentDelivery: 'attach' | 'volume' | undefined
  /** As agreed with the engine. */
  readonly apiVersion: () => string
}
