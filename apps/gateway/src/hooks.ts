/**
 * What happens to every request before its route: identity, origin, host, draining; and after it: headers and one log line.
 *
 * I1. Nothing of a body, an environment or a command is logged.
 */
import { FaasError } from '@faas-platform/core'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Identity } from './access/identity.js'
import { demandScope, identify, LOCAL } from './access/identity.js'
import type { Scope } from './access/keys.js'
import { allowedOrigin, isExpectedHost, isSameOrigin } from './access/origin.js'
import type { GatewayContext } from './context.js'

declare module 'fastify' {
  interface FastifyRequest {
    identity: Identity
  }
  interface FastifyContextConfig {
    /** What a key must allow for this route. `open`: no key at all. */
    scope?: Scope | 'open'
    /** Lets go of something: welcome while the gateway drains, when nothing new is taken. */
    endsWork?: true
  }
}

const READING = new Set(['GET', 'HEAD', 'OPTIONS'])

export function installHooks(app: FastifyInstance, gateway: GatewayContext): void {
  app.decorateRequest('identity', null as unknown as Identity)

  app.addHook('onRequest', async (request, reply) => {
    request.identity = LOCAL
    setCommonHeaders(request, reply)
    if (await guardOrigin(request, reply, gateway)) return reply
    guardHost(request, gateway)
    const scope = request.routeOptions.config.scope ?? 'admin'
    if (scope === 'open') return
    request.identity = await identify(request, gateway.keys, gateway.keysDemanded)
    if (request.is404) return
    demandScope(request.identity, scope)
    if (gateway.counters.draining && !READING.has(request.method) && request.routeOptions.config.endsWork !== true) {
      throw new FaasError('admission/draining', { message: 'The gateway is shutting down and takes no new work.' })
    }
  })

  app.addHook('onResponse', async (request, reply) => {
    const route = request.is404 ? 'none' : (request.routeOptions.url ?? 'none')
    gateway.counters.answered(request.method, route, reply.statusCode)
    request.log.info(
      { method: request.method, route, status: reply.statusCode, ms: Math.round(reply.elapsedTime * 100) / 100, principal: request.identity.principal },
      'answered',
    )
    // A refused upgrade leaves a connection that no HTTP server counts any more: it would outlive the gateway.
    if (request.headers.upgrade !== undefined) request.raw.socket.destroySoon()
  })
}

/** `x-request-id` of the caller is echoed; the answer's headers tell browsers to sniff, frame and cache nothing. */
function setCommonHeaders(request: FastifyRequest, reply: FastifyReply): void {
  reply.headers({
    'x-request-id': request.id,
    'x-content-type-options': 'nosniff',
    'x-frame-options': 'DENY',
    'referrer-policy': 'no-referrer',
    'cache-control': 'no-store',
    'cross-origin-resource-policy': 'same-origin',
  })
}

/** @returns True when the request was a preflight and is answered. */
async function guardOrigin(request: FastifyRequest, reply: FastifyReply, gateway: GatewayContext): Promise<boolean> {
  const origin = request.headers.origin
  if (origin === undefined) return false
  void reply.header('vary', 'Origin')
  const isPreflight = request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined
  const allowed = allowedOrigin(origin, gateway.config)
  if (allowed !== null) {
    reply.headers({ 'access-control-allow-origin': allowed, 'access-control-expose-headers': 'x-request-id, retry-after', 'cross-origin-resource-policy': 'cross-origin' })
    if (!isPreflight) return false
    reply.headers({
      'access-control-allow-methods': 'GET, POST, DELETE',
      'access-control-allow-headers': 'authorization, content-type, idempotency-key, last-event-id, x-api-key, x-request-id',
      'access-control-max-age': '600',
    })
    await reply.code(204).send()
    return true
  }
  // A page may cause no effect here, with or without a preflight (WebSockets and forms have none). What it
  // merely reads, its browser withholds from it.
  const causesEffects = !READING.has(request.method) || isPreflight || request.headers.upgrade !== undefined
  if (causesEffects && !isSameOrigin(origin, request.headers.host)) {
    gateway.counters.securityRefusals++
    throw new FaasError('request/origin-refused', { message: `Pages of ${origin} may not call this gateway.`, hint: 'FAAS_CORS_ORIGINS lists the origins that may.' })
  }
  return false
}

function guardHost(request: FastifyRequest, gateway: GatewayContext): void {
  if (gateway.keysDemanded) return
  if (isExpectedHost(request.headers.host, { listenHost: gateway.config.host, allowedHosts: gateway.config.allowedHosts })) return
  gateway.counters.securityRefusals++
  throw new FaasError('request/host-refused', {
    message: 'The Host header does not name this gateway.',
    hint: 'Use a loopback name, or list the name in FAAS_ALLOWED_HOSTS.',
  })
}
