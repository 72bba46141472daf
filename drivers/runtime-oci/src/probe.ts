/** Is the runtime usable here? Answered by running something in it. */
import type { ProbeReport } from '@faas-platform/core'
import type { CgroupHost } from '@faas-platform/host'
import type { OciDriverOptions } from './driver.js'
import type { RuntimeKind } from './runtime-command.js'

export interface ProbeOptions extends OciDriverOptions {
  readonly kind: RuntimeKind
  readonly cgroups: CgroupHost
  readonly ready: () => Promise<unknown>
  readonly signal: AbortSignal
}

export async function probeRuntime(options: ProbeOptions): Promise<ProbeReport> {
  await options.ready()
  throw new Error('TODO')
}
