/** Health, metrics and pool bodies: what the three original clients decode, and real numbers beside it. */
import { ISOLATION_CLASSES, RUNTIME_NAMES } from '@faas-platform/core'
import type { Static } from 'typebox'
import Type from 'typebox'
import { nullable, oneOf, TextMap, Timestamp } from './schema-parts.js'

export const HealthReply = Type.Object(
  {
    status: oneOf(['healthy', 'degraded', 'draining'], { description: '`degraded`: no runtime is usable.' }),
    docker: Type.Boolean({ description: 'The Docker Engine was usable when it was last probed.' }),
    firecracker: Type.Boolean(),
    uptime_ms: Type.Integer({ minimum: 0 }),
    uptime_seconds: Type.Integer({ minimum: 0 }),
    timestamp: Timestamp,
    version: Type.String(),
    components: TextMap,
    issues: Type.Array(Type.String()),
  },
  { title: 'Health' },
)
export type HealthReply = Static<typeof HealthReply>

const Count = Type.Integer({ minimum: 0 })

export const MetricsReply = Type.Object(
  {
    total_requests: Count, cache_hits: Count, cache_hit_rate: Type.Number(), docker_executions: Count, vm_executions: Count,
    total_executions: Count, avg_execution_time_ms: Type.Number(), active_containers: Count, active_instances: Count,
    memory_usage_mb: Count, cpu_usage_percent: Type.Number(),
    request_count: Count, error_rate: Type.Number(), warm_start_ratio: Type.Number(),
    average_latency_ms: Type.Number(), p50_latency_ms: Type.Number(), p95_latency_ms: Type.Number(), p99_latency_ms: Type.Number(),
    queue_depth: Count,
    executions_by_runtime: Type.Record(Type.String(), Count),
    executions_by_outcome: Type.Record(Type.String(), Count),
  },
  { title: 'Metrics' },
)
export type MetricsReply = Static<typeof MetricsReply>

const Latency = Type.Object({ count: Count, avg_ms: nullable(Type.Number()), p50_ms: nullable(Type.Number()), p95_ms: nullable(Type.Number()), p99_ms: nullable(Type.Number()) })
export type LatencyReply = Static<typeof Latency>

export const DetailedMetricsReply = Type.Object(
  {
    summary: Type.Object({ total_requests: Count, cache_hits: Count, cache_hit_rate: Type.Number() }),
    runtimes: Type.Record(Type.String(), Type.Object({ executions: Count, available: Type.Boolean(), reason: nullable(Type.String()), version: nullable(Type.String()) })),
    performance: Type.Object({
      avg_cold_start_ms: nullable(Type.Number(), 'Making a sandbox; null until one was made.'),
      avg_warm_start_ms: nullable(Type.Number(), 'Whole synchronous executions on a warm sandbox; null until there was one.'),
      p99_latency_ms: nullable(Type.Number()),
    }),
    latency_by_runtime: Type.Record(Type.String(), Latency),
    cold_start_phases: Type.Record(Type.String(), Type.Record(Type.String(), Latency)),
    phases: Type.Record(Type.String(), Latency),
    pool: Type.Record(Type.String(), Type.Number()),
    admission: Type.Record(Type.String(), Type.Number()),
    async: Type.Record(Type.String(), Type.Number()),
    teardown: Type.Record(Type.String(), Type.Number()),
    retention: Type.Record(Type.String(), Type.Number()),
    instances: Type.Record(Type.String(), Type.Number()),
    ledger: Type.Record(Type.String(), Type.Number()),
    reclaimed_at_start: Type.Record(Type.String(), Type.Record(Type.String(), Type.Number())),
    process: Type.Object({ rss_bytes: Count, heap_used_bytes: Count, event_loop_p99_ms: Type.Number(), streams: Count }),
  },
  { title: 'DetailedMetrics' },
)
export type DetailedMetricsReply = Static<typeof DetailedMetricsReply>

export const RuntimeReply = Type.Object(
  {
    name: oneOf(RUNTIME_NAMES), isolation: oneOf(ISOLATION_CLASSES), usable: Type.Boolean(), reason: Type.String(), hint: nullable(Type.String()),
    version: nullable(Type.String()), vulnerabilities: Type.Array(Type.Object({ id: Type.String(), fixed_in: Type.String(), summary: Type.String() })),
    features: Type.Object({ pause: Type.Boolean(), checkpoint: Type.Boolean(), retain: Type.Boolean(), tty: Type.Boolean(), resize_limits: Type.Boolean(), network: Type.Array(Type.String()) }),
    facts: Type.Array(Type.Object({ name: Type.String(), ok: Type.Boolean(), evidence: Type.String() })),
    probed_at: Timestamp,
  },
  { title: 'Runtime' },
)
export type RuntimeReply = Static<typeof RuntimeReply>

export const PoolReply = Type.Object(
  {
    runtime: oneOf(RUNTIME_NAMES), image: Type.String(), image_digest: Type.String(), memory_mb: Type.Integer(), cpu_cores: Type.Number(),
    network: oneOf(['none', 'egress']), ready: Count, creating: Count, waiting: Count, floor: Count, target: Count, hits: Count, misses: Count,
    arrivals_per_second: Type.Number(), create_ms: nullable(Type.Number()), idle_memory_bytes: Type.Number(), last_error: nullable(Type.String()),
  },
  { title: 'Pool' },
)
export type PoolReply = Static<typeof PoolReply>

export const PrewarmReply = Type.Object(
  {
    image: Type.String(), image_digest: Type.String(), runtime: oneOf(RUNTIME_NAMES), wanted: Count, ready: Count,
    limited_by: nullable(Type.String(), 'Why `ready` is below `wanted`.'),
  },
  { title: 'PrewarmResponse' },
)
export type PrewarmReply = Static<typeof PrewarmReply>

export const InstanceReply = Type.Object(
  {
    id: Type.String(), instance_id: Type.String(), name: nullable(Type.String()), image: Type.String(), image_digest: Type.String(),
    status: oneOf(['creating', 'running', 'pausing', 'paused', 'resuming', 'stopping', 'stopped', 'failed']),
    message: nullable(Type.String()), created_at: Timestamp, last_used_at: Timestamp, expires_at: nullable(Timestamp),
    cpu_cores: Type.Number(), memory_mb: Type.Integer(), runtime: oneOf(RUNTIME_NAMES), network: oneOf(['none', 'egress']),
    endpoints: TextMap, labels: TextMap, active_executions: Count, created_by: nullable(Type.String()),
  },
  { title: 'Instance' },
)
export type InstanceReply = Static<typeof InstanceReply>
