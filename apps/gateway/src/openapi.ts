/** The OpenAPI document, made from the schemas that validate, and its page. */
import { ErrorBody } from '@faas-platform/protocol'
import swagger from '@fastify/swagger'
import swaggerUi from '@fastify/swagger-ui'
import type { FastifyInstance } from 'fastify'
import type { TSchema } from 'typebox'

/** The error body under each of these statuses. */
export function errorResponses(...statuses: readonly number[]): Record<number, TSchema> {
  return Object.fromEntries(statuses.map((status) => [status, ErrorBody]))
}

export async function installOpenApi(app: FastifyInstance, version: string): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'FaaS platform gateway',
        version,
        description: 'Runs commands in isolated sandboxes. Every error has the body `{"error":{"code","message","hint","details"},"request_id"}`.',
        license: { name: 'MIT OR Apache-2.0', identifier: 'MIT OR Apache-2.0' },
      },
      tags: [
        { name: 'executions', description: 'Run commands, follow and end them.' },
        { name: 'instances', description: 'Sandboxes that live on.' },
        { name: 'snapshots', description: 'Stored state.' },
        { name: 'pool', description: 'Warm sandboxes.' },
        { name: 'images', description: 'Stored images.' },
        { name: 'keys', description: 'API keys.' },
        { name: 'observation', description: 'Health and metrics.' },
      ],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer' },
          apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
        },
      },
      // The empty entry: a loopback gateway demands none.
      security: [{}, { bearer: [] }, { apiKey: [] }],
    },
  })
  // Open, as /health: the document holds no secret. Its assets are served from here: the page works without internet.
  app.addHook('onRoute', (route) => {
    if (route.url.startsWith('/docs')) route.config = { ...route.config, scope: 'open' }
  })
  await app.register(swaggerUi, {
    routePrefix: '/docs',
    staticCSP: true,
    uiConfig: { docExpansion: 'list', deepLinking: true, validatorUrl: null, layout: 'BaseLayout' },
  })
  app.get('/openapi.json', { config: { scope: 'open' }, schema: { hide: true } }, () => app.swagger())
}
