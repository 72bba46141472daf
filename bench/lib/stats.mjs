/** Percentiles and paired ratios. A ratio is only ever taken between figures of the same run. */

/** @param {readonly number[]} values ms @returns nearest-rank percentiles */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b)
  return { n: sorted.length, min: at(sorted, 0), p50: at(sorted, 0.5), p95: at(sorted, 0.95), p99: at(sorted, 0.99), max: at(sorted, 1) }
}

function at(sorted, quantile) {
  if (sorted.length === 0) return Number.NaN
  return round(sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(quantile * sorted.length) - 1))])
}

/** Median of the per-round ratios a/b: noise that hits both sides of a round cancels. */
export function pairedRatio(a, b) {
  const ratios = a.slice(0, Math.min(a.length, b.length)).map((value, i) => value / b[i])
  return summary(ratios).p50
}

export function round(value, digits = 3) {
  return Number(value.toFixed(digits))
}
