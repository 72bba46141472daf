/** 404 and 405 with the one error body. */
import { FaasError } from '@faas-platform/core'
import { errorBody } from '@faas-platform/protocol'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

interface KnownRoute {
  readonly segments: readonly string[]
  readonly methods: Set<string>
}

export function installMissingRoutes(app: FastifyInstance): void {
  const routes = new Map<string, KnownRoute>()
  app.addHook('onRoute', ({ url, method }) => {
    const known = routes.get(url) ?? { segments: url.split('/'), methods: new Set<string>() }
    for (const name of Array.isArray(method) ? method : [method]) known.methods.add(name)
    routes.set(url, known)
  })
  const answer = (request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const path = request.url.split('?')[0] ?? '/'
    const methods = methodsOf(path, routes.values())
    const allowed = methods.size > 0 && !methods.has(request.method)
    if (allowed) void reply.header('allow', [...methods].sort().join(', '))
    const error = new FaasError('request/unknown-route', {
      message: allowed ? `${request.method} is not possible on ${path}.` : `There is no ${path} here.`,
      hint: 'GET /docs lists every route.',
      ...(allowed && { details: { allowed: [...methods].sort() } }),
    })
    return reply.code(allowed ? 405 : 404).type('application/json').send(errorBody(error, request.id))
  }
  app.setNotFoundHandler(answer)
  // Before the body is read: what it holds does not matter where nobody takes it.
  app.addHook('onRequest', async (request, reply) => (request.is404 ? answer(request, reply) : undefined))
}

function methodsOf(path: string, routes: Iterable<KnownRoute>): Set<string> {
  const segments = path.split('/')
  const methods = new Set<string>()
  for (const route of routes) {
    if (route.segments.length !== segments.length) continue
    if (!route.segments.every((segment, index) => segment === segments[index] || (segment.startsWith(':') && segments[index] !== ''))) continue
    for (const method of route.methods) methods.add(method)
  }
  return methods
}
