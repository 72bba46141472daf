/** What only the gateway sees; the rest of the metrics is the executor's. */
export interface StartLatency {
  count: number
  sumMs: number
}

export class GatewayCounters {
  authFailures = 0
  securityRefusals = 0
  rateLimited = 0
  streams = 0
  draining = false
  /** Synchronous executions by how they got their sandbox. */
  readonly startLatency: Record<'warm' | 'cold' | 'reused' | 'cached', StartLatency> = {
    warm: { count: 0, sumMs: 0 }, cold: { count: 0, sumMs: 0 }, reused: { count: 0, sumMs: 0 }, cached: { count: 0, sumMs: 0 },
  }
  readonly #responses = new Map<string, number>()

  answered(method: string, route: string, status: number): void {
    const key = `${method} ${route} ${status}`
    this.#responses.set(key, (this.#responses.get(key) ?? 0) + 1)
  }

  responses(): readonly { readonly method: string; readonly route: string; readonly status: string; readonly count: number }[] {
    return [...this.#responses].map(([key, count]) => {
      const [method = '', route = '', status = ''] = key.split(' ')
      return { method, route, status, count }
    })
  }
}
