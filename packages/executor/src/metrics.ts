/** Counters and histograms as plain data; the gateway turns them into Prometheus text. */
import type { Outcome, ReclaimReport, RuntimeName, TimeBudget } from '@faas-platform/core'

/** Upper bounds in ms; a last bucket without a bound follows. */
export const DURATION_BOUNDS_MS: readonly number[] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000]

export interface HistogramData {
  readonly boundsMs: readonly number[]
  /** Per bucket, not cumulative; one more than `boundsMs`. */
  readonly counts: readonly number[]
  readonly sumMs: number
  readonly count: number
}

export class Histogram {
  readonly #counts: number[] = new Array<number>(DURATION_BOUNDS_MS.length + 1).fill(0)
  #sum = 0
  #count = 0

  observe(ms: number): void {
    let bucket = DURATION_BOUNDS_MS.findIndex((bound) => ms <= bound)
    if (bucket === -1) bucket = DURATION_BOUNDS_MS.length
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
    this.#sum += ms
    this.#count++
  }

  data(): HistogramData {
    return { boundsMs: DURATION_BOUNDS_MS, counts: [...this.#counts], sumMs: this.#sum, count: this.#count }
  }
}

export interface PoolCounters {
  hits: number
  misses: number
  creations: number
  failures: number
  evictions: number
  /** Idle sandboxes that ended by themselves. */
  deaths: number
}

export interface ExecutionCount {
  readonly runtime: RuntimeName | 'none'
  readonly outcome: Outcome
  readonly start: 'warm' | 'cold' | 'reused' | 'cached' | 'none'
  readonly count: number
}

export interface MetricsSnapshot {
  readonly executions: readonly ExecutionCount[]
  /** Whole time of an execution, from its acceptance, by runtime. */
  readonly durations: Readonly<Record<string, HistogramData>>
  /** `runtime` → phase → histogram. Phase `total` is the whole creation. */
  readonly coldStarts: Readonly<Record<string, Readonly<Record<string, HistogramData>>>>
  readonly phases: Readonly<Record<string, HistogramData>>
  readonly pool: Readonly<PoolCounters> & { readonly ready: number; readonly creating: number; readonly waiting: number; readonly idleBytes: number; readonly idleBytesMax: number }
  readonly admission: { readonly running: number; readonly queued: number; readonly rejected: number; readonly concurrencyMax: number; readonly queueMax: number }
  readonly async: { readonly running: number; readonly queued: number }
  readonly teardown: { readonly backlog: number; readonly disposed: number; readonly failed: number; readonly retried: number }
  readonly retention: { readonly count: number; readonly bytes: number; readonly kept: number; readonly dropped: number; readonly failed: number }
  readonly instances: { readonly live: number }
  /** What start-up freed after a killed process, by runtime. */
  readonly reclaimed: Readonly<Partial<Record<RuntimeName, ReclaimReport>>>
  readonly ledger: { readonly pendingWrites: number; readonly failedWrites: number }
  readonly cpuMs: number
  readonly outputBytes: number
}

export class Metrics {
  readonly pool: PoolCounters = { hits: 0, misses: 0, creations: 0, failures: 0, evictions: 0, deaths: 0 }
  readonly retention = { kept: 0, dropped: 0, failed: 0 }
  reclaimed: Partial<Record<RuntimeName, ReclaimReport>> = {}
  rejected = 0
  failedWrites = 0
  cpuMs = 0
  outputBytes = 0
  readonly #executions = new Map<string, { runtime: RuntimeName | 'none'; outcome: Outcome; start: ExecutionCount['start']; count: number }>()
  readonly #durations = new Map<string, Histogram>()
  readonly #coldStarts = new Map<string, Map<string, Histogram>>()
  readonly #phases = new Map<string, Histogram>()

  ended(entry: Omit<ExecutionCount, 'count'>, totalMs: number, budget: TimeBudget): void {
    const key = `${entry.runtime} ${entry.outcome} ${entry.start}`
    const known = this.#executions.get(key)
    if (known === undefined) this.#executions.set(key, { ...entry, count: 1 })
    else known.count++
    getOrMake(this.#durations, entry.runtime).observe(totalMs)
    for (const phase in budget) getOrMake(this.#phases, phase).observe(budget[phase] ?? 0)
  }

  coldStart(runtime: RuntimeName, totalMs: number, phases: TimeBudget): void {
    let histograms = this.#coldStarts.get(runtime)
    if (histograms === undefined) {
      histograms = new Map()
      this.#coldStarts.set(runtime, histograms)
    }
    getOrMake(histograms, 'total').observe(totalMs)
    for (const phase in phases) getOrMake(histograms, phase).observe(phases[phase] ?? 0)
  }

  /** The part of a snapshot that is counted here; the executor adds what it reads from its parts. */
  counted(): Pick<MetricsSnapshot, 'executions' | 'durations' | 'coldStarts' | 'phases' | 'reclaimed' | 'cpuMs' | 'outputBytes'> {
    return {
      executions: [...this.#executions.values()].map((entry) => ({ ...entry })),
      durations: dataOf(this.#durations),
      coldStarts: Object.fromEntries([...this.#coldStarts].map(([runtime, histograms]) => [runtime, dataOf(histograms)])),
      phases: dataOf(this.#phases),
      reclaimed: this.reclaimed,
      cpuMs: this.cpuMs,
      outputBytes: this.outputBytes,
    }
  }
}

function getOrMake(map: Map<string, Histogram>, name: string): Histogram {
  let histogram = map.get(name)
  if (histogram === undefined) {
    histogram = new Histogram()
    map.set(name, histogram)
  }
  return histogram
}

function dataOf(map: ReadonlyMap<string, Histogram>): Record<string, HistogramData> {
  return Object.fromEntries([...map].map(([name, histogram]) => [name, histogram.data()]))
}
