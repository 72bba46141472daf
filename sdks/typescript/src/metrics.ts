import type { ClientMetricsSnapshot } from './types.js'

/** What this client saw of its own calls to `execute`. */
export class ClientMetrics implements ClientMetricsSnapshot {
  totalRequests = 0
  cacheHits = 0
  totalLatencyMs = 0
  errors = 0

  get cacheHitRate(): number {
    return this.totalRequests === 0 ? 0 : this.cacheHits / this.totalRequests
  }

  get averageLatencyMs(): number {
    return this.totalRequests === 0 ? 0 : this.totalLatencyMs / this.totalRequests
  }

  /** Failed calls of all calls; `totalRequests` counts both. */
  get errorRate(): number {
    return this.totalRequests === 0 ? 0 : this.errors / this.totalRequests
  }

  count({ elapsedMs, hit, failed }: { readonly elapsedMs: number; readonly hit: boolean; readonly failed: boolean }): void {
    this.totalRequests++
    this.totalLatencyMs += elapsedMs
    if (hit) this.cacheHits++
    if (failed) this.errors++
  }
}
