/** Health, metrics, runtimes. */
import type { MetricsSnapshot, RuntimeStatus } from '@faas-platform/executor'
import type { DetailedMetricsReply as Detailed, HealthReply as Health, MetricsReply as Metrics, RuntimeReply as Runtime } from '@faas-platform/protocol'
import { DetailedMetricsReply, HealthReply, MetricsReply, RuntimeReply, timestamp } from '@faas-platform/protocol'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import Type from 'typebox'
import type { GatewayContext } from '../context.js'
import { errorResponses } from '../openapi.js'
import { HostLoad } from '../telemetry/host-load.js'
import { prometheusRegistry } from '../telemetry/prometheus.js'
import { averageMs, latency, merged, quantileMs } from '../telemetry/quantile.js'

const tags = ['observation']

export function observationRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  const load = new HostLoad()
  const loopDelay = monitorEventLoopDelay({ resolution: 10 })
  loopDelay.enable()
  const prometheus = prometheusRegistry(gateway, load)
  app.addHook('onClose', async () => {
    loopDelay.disable()
    prometheus.clear()
  })

  app.get('/health', {
    config: { scope: 'open' },
    exposeHeadRoute: true,
    schema: { tags, summary: 'Health; needs no key', response: { 200: HealthReply, 503: HealthReply } },
  }, async (_request, reply) => {
    const health = healthOf(gateway)
    // A load balancer must send nothing more to a gateway that is about to end.
    return reply.code(health.status === 'draining' ? 503 : 200).send(health)
  })

  app.get('/api/v1/metrics', {
    config: { scope: 'read' },
    schema: { tags, summary: 'Figures since the start', response: { 200: MetricsReply, ...errorResponses(401, 403) } },
  }, async () => metricsOf(gateway.executor.metrics(), load))

  app.get('/api/v1/metrics/detailed', {
    config: { scope: 'read' },
    schema: { tags, summary: 'Every figure, with cold start phases', response: { 200: DetailedMetricsReply, ...errorResponses(401, 403) } },
  }, async () => detailedOf(gateway, loopDelay.percentile(99) / 1e6))

  const scrape = async (_request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> =>
    reply.type(prometheus.contentType).send(await prometheus.metrics())
  for (const url of ['/metrics', '/api/v1/metrics/prometheus']) {
    app.get(url, {
      config: { scope: 'read' },
      schema: { tags, summary: 'Prometheus text format', response: { 200: { description: 'Metrics', content: { 'text/plain': { schema: Type.String() } } }, ...errorResponses(401, 403) } },
    }, scrape)
  }

  app.get('/api/v1/runtimes', {
    config: { scope: 'read' },
    schema: { tags, summary: 'Runtimes and what their probes found', response: { 200: Type.Array(RuntimeReply), ...errorResponses(401, 403) } },
  }, async () => gateway.executor.runtimes().map(runtimeReply))
}

function healthOf(gateway: GatewayContext): Health {
  const runtimes = gateway.executor.runtimes()
  const usable = runtimes.filter((runtime) => runtime.probe.usable)
  const now = gateway.clock.nowMs()
  const uptimeMs = Math.max(0, Math.round(now - gateway.startedAtMs))
  return {
    status: gateway.counters.draining ? 'draining' : usable.length > 0 ? 'healthy' : 'degraded',
    docker: usable.some((runtime) => runtime.name === 'docker'),
    firecracker: usable.some((runtime) => runtime.name === 'firecracker'),
    uptime_ms: uptimeMs,
    uptime_seconds: Math.floor(uptimeMs / 1000),
    timestamp: timestamp(now),
    version: gateway.version,
    components: Object.fromEntries(runtimes.map((runtime) => [runtime.name, runtime.probe.usable ? 'healthy' : 'unavailable'])),
    issues: usable.length > 0 ? [] : runtimes.map((runtime) => `${runtime.name}: ${runtime.probe.reason}`),
  }
}

export function metricsOf(snapshot: MetricsSnapshot, load: HostLoad): Metrics {
  const total = sum(snapshot.executions, () => true)
  const hits = sum(snapshot.executions, (entry) => entry.start === 'cached')
  const warm = sum(snapshot.executions, (entry) => entry.start === 'warm')
  const cold = sum(snapshot.executions, (entry) => entry.start === 'cold')
  const all = merged(Object.values(snapshot.durations))
  const average = all === null ? 0 : (averageMs(all) ?? 0)
  const quantile = (q: number): number => (all === null ? 0 : (quantileMs(all, q) ?? 0))
  const byRuntime = counted(snapshot, (entry) => entry.runtime)
  return {
    total_requests: total,
    cache_hits: hits,
    cache_hit_rate: ratio(hits, total),
    docker_executions: byRuntime['docker'] ?? 0,
    vm_executions: (byRuntime['firecracker'] ?? 0) + (byRuntime['qemu'] ?? 0),
    total_executions: total,
    avg_execution_time_ms: average,
    active_containers: snapshot.admission.running + snapshot.async.running,
    active_instances: snapshot.instances.live,
    memory_usage_mb: load.memoryUsedMib(),
    cpu_usage_percent: load.cpuPercent(),
    request_count: total,
    error_rate: ratio(sum(snapshot.executions, (entry) => entry.outcome !== 'exited'), total),
    warm_start_ratio: ratio(warm, warm + cold),
    average_latency_ms: average,
    p50_latency_ms: quantile(0.5),
    p95_latency_ms: quantile(0.95),
    p99_latency_ms: quantile(0.99),
    queue_depth: snapshot.admission.queued + snapshot.async.queued,
    executions_by_runtime: byRuntime,
    executions_by_outcome: counted(snapshot, (entry) => entry.outcome),
  }
}

const UNCONFIGURED = { executions: 0, available: false, reason: 'It is not among the configured runtimes.', version: null } as const

function detailedOf(gateway: GatewayContext, eventLoopP99Ms: number): Detailed {
  const snapshot = gateway.executor.metrics()
  const total = sum(snapshot.executions, () => true)
  const hits = sum(snapshot.executions, (entry) => entry.start === 'cached')
  const byRuntime = counted(snapshot, (entry) => entry.runtime)
  const colds = merged(Object.values(snapshot.coldStarts).flatMap((phases) => (phases['total'] === undefined ? [] : [phases['total']])))
  const all = merged(Object.values(snapshot.durations))
  const memory = process.memoryUsage()
  return {
    summary: { total_requests: total, cache_hits: hits, cache_hit_rate: ratio(hits, total) },
    runtimes: {
      // The original always tells about these two.
      docker: UNCONFIGURED,
      firecracker: UNCONFIGURED,
      ...Object.fromEntries(gateway.executor.runtimes().map((runtime) => [runtime.name, {
        executions: byRuntime[runtime.name] ?? 0, available: runtime.probe.usable, reason: runtime.probe.reason, version: runtime.probe.version,
      }])),
    },
    performance: {
      avg_cold_start_ms: colds === null ? null : averageMs(colds),
      avg_warm_start_ms: averageMs(gateway.counters.startLatency.warm),
      p99_latency_ms: all === null ? null : quantileMs(all, 0.99),
    },
    latency_by_runtime: mapValues(snapshot.durations, latency),
    cold_start_phases: mapValues(snapshot.coldStarts, (phases) => mapValues(phases, latency)),
    phases: mapValues(snapshot.phases, latency),
    pool: { ...snapshot.pool },
    admission: { ...snapshot.admission },
    async: { ...snapshot.async },
    teardown: { ...snapshot.teardown },
    retention: { ...snapshot.retention },
    instances: { ...snapshot.instances },
    ledger: { ...snapshot.ledger },
    reclaimed_at_start: mapValues(snapshot.reclaimed, (report) => ({ ...report })),
    process: { rss_bytes: memory.rss, heap_used_bytes: memory.heapUsed, event_loop_p99_ms: Math.round(eventLoopP99Ms * 1000) / 1000, streams: gateway.counters.streams },
  }
}

function runtimeReply(status: RuntimeStatus): Runtime {
  const { probe, features } = status
  return {
    name: status.name, isolation: status.isolation, usable: probe.usable, reason: probe.reason, hint: probe.hint ?? null, version: probe.version,
    vulnerabilities: probe.vulnerabilities.map((entry) => ({ id: entry.id, fixed_in: entry.fixedIn, summary: entry.summary })),
    features: { pause: features.pause, checkpoint: features.checkpoint, retain: features.retain, tty: features.tty, resize_limits: features.resizeLimits, network: [...features.network] },
    facts: probe.facts.map((fact) => ({ ...fact })),
    probed_at: timestamp(status.probedAtMs),
  }
}

type Entry = MetricsSnapshot['executions'][number]

function sum(entries: readonly Entry[], wanted: (entry: Entry) => boolean): number {
  return entries.reduce((total, entry) => (wanted(entry) ? total + entry.count : total), 0)
}

function counted(snapshot: MetricsSnapshot, name: (entry: Entry) => string): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const entry of snapshot.executions) counts[name(entry)] = (counts[name(entry)] ?? 0) + entry.count
  return counts
}

function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : Math.round((part / whole) * 10_000) / 10_000
}

function mapValues<T, U>(record: Readonly<Record<string, T>> | Readonly<Partial<Record<string, T>>>, map: (value: T) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).flatMap(([key, value]) => (value === undefined ? [] : [[key, map(value)] as const])))
}
