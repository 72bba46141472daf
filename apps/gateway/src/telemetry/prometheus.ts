/** The executor's figures as Prometheus metrics. They are counted where things happen; here they are only rendered. */
import type { HistogramData, MetricsSnapshot } from '@faas-platform/executor'
import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client'
import type { GatewayContext } from '../context.js'
import type { HostLoad } from './host-load.js'

type Labels = Readonly<Record<string, string>>
type Sample = readonly [Labels, number]

export function prometheusRegistry(gateway: GatewayContext, load: HostLoad): Registry {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  const { executor, counters } = gateway
  // One snapshot for one scrape: all its metrics speak of the same moment.
  let snapshot: { readonly atMs: number; readonly data: MetricsSnapshot } | undefined
  const data = (): MetricsSnapshot => {
    const now = gateway.clock.monotonicMs()
    if (snapshot === undefined || now - snapshot.atMs > 50) snapshot = { atMs: now, data: executor.metrics() }
    return snapshot.data
  }

  const counter = (name: string, help: string, labelNames: readonly string[], samples: () => readonly Sample[]): void => {
    new Counter({ name, help, labelNames: [...labelNames], registers: [registry], collect() {
      this.reset()
      for (const [labels, value] of samples()) this.inc({ ...labels }, value)
    } })
  }
  const gauge = (name: string, help: string, labelNames: readonly string[], samples: () => readonly Sample[]): void => {
    new Gauge({ name, help, labelNames: [...labelNames], registers: [registry], collect() {
      this.reset()
      for (const [labels, value] of samples()) this.set({ ...labels }, value)
    } })
  }
  const one = (value: () => number) => (): readonly Sample[] => [[{}, value()]]

  gauge('faas_build_info', 'Version of the gateway.', ['version'], () => [[{ version: gateway.version }, 1]])
  counter('faas_executions_total', 'Ended executions.', ['status', 'runtime', 'outcome', 'start'], () =>
    data().executions.map(({ runtime, outcome, start, count }) => [{ status: outcome === 'exited' ? 'success' : 'failed', runtime, outcome, start }, count]))
  counter('faas_http_responses_total', 'Answers by route.', ['method', 'route', 'status'], () =>
    counters.responses().map(({ method, route, status, count }) => [{ method, route, status }, count]))
  counter('faas_auth_failures_total', 'Refused keys.', [], one(() => counters.authFailures))
  counter('faas_security_violations_total', 'Refused origins and host names.', [], one(() => counters.securityRefusals))
  counter('faas_rate_limit_exceeded_total', 'Answers with 429.', [], one(() => counters.rateLimited))
  counter('faas_container_creation_failures_total', 'Sandboxes for the pool that could not be made.', [], one(() => data().pool.failures))
  counter('faas_pool_requests_total', 'Requests that found a warm sandbox, and that did not.', ['result'], () => [[{ result: 'hit' }, data().pool.hits], [{ result: 'miss' }, data().pool.misses]])
  counter('faas_pool_evictions_total', 'Warm sandboxes let go.', [], one(() => data().pool.evictions))
  counter('faas_pool_deaths_total', 'Warm sandboxes that ended by themselves.', [], one(() => data().pool.deaths))
  counter('faas_sandboxes_disposed_total', 'Sandboxes torn down.', ['result'], () => [[{ result: 'ok' }, data().teardown.disposed], [{ result: 'failed' }, data().teardown.failed]])
  counter('faas_reclaimed_total', 'What start-up freed after a killed process.', ['runtime', 'kind'], () =>
    Object.entries(data().reclaimed).flatMap(([runtime, report]) => Object.entries(report).map(([kind, count]): Sample => [{ runtime, kind }, count])))
  counter('faas_execution_cpu_seconds_total', 'CPU time of ended executions.', [], one(() => data().cpuMs / 1000))
  counter('faas_execution_output_bytes_total', 'Output of ended executions.', [], one(() => data().outputBytes))
  counter('faas_ledger_write_failures_total', 'Records that could not be stored.', [], one(() => data().ledger.failedWrites))

  gauge('faas_execution_queue_depth', 'Executions that wait.', ['kind'], () => [[{ kind: 'sync' }, data().admission.queued], [{ kind: 'async' }, data().async.queued]])
  gauge('faas_active_containers', 'Commands that run.', ['kind'], () => [[{ kind: 'sync' }, data().admission.running], [{ kind: 'async' }, data().async.running]])
  gauge('faas_available_containers', 'Warm sandboxes that are ready.', [], one(() => data().pool.ready))
  gauge('faas_total_containers', 'Sandboxes that exist: running, ready, being made, instances.', [], one(() => data().admission.running + data().async.running + data().pool.ready + data().pool.creating + data().instances.live))
  gauge('faas_active_instances', 'Instances that live.', [], one(() => data().instances.live))
  gauge('faas_pool_idle_bytes', 'Memory of warm sandboxes.', [], one(() => data().pool.idleBytes))
  gauge('faas_teardown_backlog', 'Sandboxes that wait for their teardown.', [], one(() => data().teardown.backlog))
  gauge('faas_retained_bytes', 'Retained end states.', [], one(() => data().retention.bytes))
  gauge('faas_cache_hit_rate', 'Answers from the result cache, of all.', [], one(() => cacheHitRate(data())))
  gauge('faas_open_streams', 'Event streams and WebSockets.', [], one(() => counters.streams))
  gauge('faas_cpu_usage_percent', 'CPU of the host since the last look.', [], one(() => load.cpuPercent()))
  gauge('faas_memory_usage_percent', 'Memory of the host.', [], one(() => load.memoryPercent()))
  gauge('faas_runtime_available', 'What the last probe of the runtime said.', ['runtime', 'isolation'], () =>
    executor.runtimes().map((runtime) => [{ runtime: runtime.name, isolation: runtime.isolation }, runtime.probe.usable ? 1 : 0]))
  for (const name of ['docker', 'firecracker'] as const) {
    gauge(name === 'docker' ? 'faas_docker_daemon_available' : 'faas_firecracker_available', `The runtime ${name} was usable when last probed.`, [], one(() => (executor.runtimes().some((runtime) => runtime.name === name && runtime.probe.usable) ? 1 : 0)))
  }

  histogram(registry, 'faas_execution_duration_seconds', 'Whole time of an execution.', () => Object.entries(data().durations).map(([runtime, entry]) => [{ runtime }, entry]))
  histogram(registry, 'faas_cold_start_seconds', 'Making a sandbox, by phase; phase "total" is the whole.', () =>
    Object.entries(data().coldStarts).flatMap(([runtime, phases]) => Object.entries(phases).map(([phase, entry]): readonly [Labels, HistogramData] => [{ runtime, phase }, entry])))
  histogram(registry, 'faas_execution_phase_seconds', 'Phases of an execution.', () => Object.entries(data().phases).map(([phase, entry]) => [{ phase }, entry]))
  return registry
}

/** prom-client's own histogram observes; these were observed elsewhere, so that only its text form is needed. */
function histogram(registry: Registry, name: string, help: string, entries: () => readonly (readonly [Labels, HistogramData])[]): void {
  const shell = new Gauge({ name, help, labelNames: ['le', 'runtime', 'phase'], registers: [registry] })
  const rendered = async () => ({
    name, help, type: 'histogram', aggregator: 'sum',
    values: entries().flatMap(([labels, data]) => histogramValues(name, labels, data)),
  })
  // The registry asks a metric for its values through `get`.
  Object.assign(shell, { get: rendered })
}

function histogramValues(name: string, labels: Labels, data: HistogramData) {
  let cumulative = 0
  const buckets = data.counts.map((count, index) => {
    cumulative += count
    const bound = data.boundsMs[index]
    return { metricName: `${name}_bucket`, labels: { le: bound === undefined ? '+Inf' : bound / 1000, ...labels }, value: cumulative }
  })
  return [...buckets, { metricName: `${name}_sum`, labels, value: data.sumMs / 1000 }, { metricName: `${name}_count`, labels, value: data.count }]
}

function cacheHitRate(snapshot: MetricsSnapshot): number {
  let total = 0
  let hits = 0
  for (const entry of snapshot.executions) {
    total += entry.count
    if (entry.start === 'cached') hits += entry.count
  }
  return total === 0 ? 0 : hits / total
}
