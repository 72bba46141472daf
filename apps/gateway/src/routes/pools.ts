/** The warm pool: fill it, look at it. */
import { bytesToMibRound } from '@faas-platform/core'
import type { PoolReport } from '@faas-platform/executor'
import type { PoolReply as Reply, PrewarmBody as Body, PrewarmReply as Prewarmed } from '@faas-platform/protocol'
import { PoolReply, PrewarmBody, PrewarmReply, toPlacement } from '@faas-platform/protocol'
import type { FastifyInstance } from 'fastify'
import Type from 'typebox'
import type { GatewayContext } from '../context.js'
import { errorResponses } from '../openapi.js'

const tags = ['pool']

export function poolRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  const { executor } = gateway

  app.post<{ Body: Body }>('/api/v1/prewarm', {
    config: { scope: 'execute' },
    schema: {
      tags, summary: 'Make sandboxes ready and keep at least so many', body: PrewarmBody,
      description: 'The number holds until another call or a restart changes it; 0 lets them go.',
      response: { 200: PrewarmReply, ...errorResponses(400, 401, 403, 404, 413, 415, 429, 500, 501, 502, 503) },
    },
  }, async (request): Promise<Prewarmed> => {
    const client = gateway.disconnects.watch(request.raw.socket)
    try {
      const placement = toPlacement(request.body, gateway.policy)
      const report = await executor.prewarm(placement, request.body.count, { signal: client.signal })
      return { image: placement.image, image_digest: report.imageDigest, runtime: report.runtime, wanted: report.wanted, ready: report.ready, limited_by: report.limitedBy }
    } finally {
      client.done()
    }
  })

  app.get('/api/v1/pools', {
    config: { scope: 'read' },
    schema: { tags, summary: 'Names of the images that have warm sandboxes', response: { 200: Type.Array(Type.String()), ...errorResponses(401, 403) } },
  }, async () => [...new Set(executor.pools().filter((pool) => pool.ready + pool.creating > 0).map((pool) => pool.image))])

  app.get('/api/v1/pools/detailed', {
    config: { scope: 'read' },
    schema: { tags, summary: 'Every line of the warm pool', response: { 200: Type.Array(PoolReply), ...errorResponses(401, 403) } },
  }, async () => executor.pools().map(poolReply))
}

function poolReply(pool: PoolReport): Reply {
  return {
    runtime: pool.runtime, image: pool.image, image_digest: pool.imageDigest,
    memory_mb: bytesToMibRound(pool.limits.memoryBytes), cpu_cores: pool.limits.cpuCores, network: pool.network.mode,
    ready: pool.ready, creating: pool.creating, waiting: pool.waiting, floor: pool.floor, target: pool.target, hits: pool.hits, misses: pool.misses,
    arrivals_per_second: pool.arrivalsPerSecond, create_ms: pool.createMs, idle_memory_bytes: pool.idleMemoryBytes, last_error: pool.lastError,
  }
}
