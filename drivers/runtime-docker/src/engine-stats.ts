/** A container's figures from the engine: slower than reading them from the host, and the only way when it is another machine. */
import type { CgroupUsage } from '@faas-platform/host'
import { segment, type EngineClient } from './engine-client.js'
import { flag, optionalNumber, shape, sub } from './engine-shape.js'
import { inspectContainer } from './engine-calls.js'

const NS_PER_MS = 1_000_000
const DEADLINE_MS = 10_000

export async function engineStats(client: EngineClient, containerId: string): Promise<CgroupUsage> {
  const query = { stream: false, 'one-shot': true }
  const [answer, inspected] = await Promise.all([
    client.json({ path: `/containers/${segment(containerId)}/stats`, query, deadlineMs: DEADLINE_MS }),
    inspectContainer(client, containerId),
  ])
  const stats = shape(answer, 'stats')
  const memory = sub(stats, 'memory_stats')
  const memoryBytes = optionalNumber(memory, 'usage') ?? 0
  return {
    cpuMs: (optionalNumber(sub(sub(stats, 'cpu_stats'), 'cpu_usage'), 'total_usage') ?? 0) / NS_PER_MS,
    memoryBytes,
    memoryPeakBytes: optionalNumber(memory, 'max_usage') ?? memoryBytes, // cgroup v2 engines do not tell the peak
    pids: optionalNumber(sub(stats, 'pids_stats'), 'current') ?? 0,
    // The engine keeps no count, only whether there was one.
    oomKills: flag(sub(inspected, 'State'), 'OOMKilled') ? 1 : 0,
  }
}
