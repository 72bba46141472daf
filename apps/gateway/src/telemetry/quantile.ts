/** Figures out of histograms. */
import type { HistogramData } from '@faas-platform/executor'
import type { LatencyReply } from '@faas-platform/protocol'

/** The quantile, interpolated inside its bucket as Prometheus does it; null without observations. */
export function quantileMs(data: HistogramData, quantile: number): number | null {
  if (data.count === 0) return null
  const rank = quantile * data.count
  let below = 0
  for (const [index, count] of data.counts.entries()) {
    if (below + count >= rank && count > 0) {
      const lower = index === 0 ? 0 : (data.boundsMs[index - 1] ?? 0)
      const upper = data.boundsMs[index] ?? lower
      return round(lower + (upper - lower) * ((rank - below) / count))
    }
    below += count
  }
  return data.boundsMs.at(-1) ?? null
}

export function averageMs(data: { readonly sumMs: number; readonly count: number }): number | null {
  return data.count === 0 ? null : round(data.sumMs / data.count)
}

export function latency(data: HistogramData): LatencyReply {
  return { count: data.count, avg_ms: averageMs(data), p50_ms: quantileMs(data, 0.5), p95_ms: quantileMs(data, 0.95), p99_ms: quantileMs(data, 0.99) }
}

/** One histogram out of several with the same bounds; null out of none. */
export function merged(histograms: readonly HistogramData[]): HistogramData | null {
  const [first, ...rest] = histograms
  if (first === undefined) return null
  return rest.reduce<HistogramData>(
    (sum, next) => ({
      boundsMs: sum.boundsMs,
      counts: sum.counts.map((count, index) => count + (next.counts[index] ?? 0)),
      sumMs: sum.sumMs + next.sumMs,
      count: sum.count + next.count,
    }),
    first,
  )
}

function round(ms: number): number {
  return Math.round(ms * 1000) / 1000
}
