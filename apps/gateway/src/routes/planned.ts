/** Routes of the original whose feature this version does not have: a typed 501, never an invented answer. */
import { FaasError } from '@faas-platform/core'
import type { EmptyBody } from '@faas-platform/protocol'
import type { FastifyInstance } from 'fastify'
import Type from 'typebox'
import { errorResponses } from '../openapi.js'
import { IdParams } from './executions.js'

const AnyBody = Type.Object({}, { additionalProperties: true })
const SNAPSHOTS = 'Snapshots are not available in this version.'
const FORKS = 'Forks are not available in this version.'
const PAUSE = 'Pausing instances is not available in this version.'

export function plannedRoutes(app: FastifyInstance): void {
  app.get('/api/v1/snapshots', {
    config: { scope: 'read' },
    schema: { tags: ['snapshots'], summary: 'List snapshots: there are none yet', response: { 200: Type.Array(Type.Unknown()), ...errorResponses(401, 403) } },
  }, async () => [])
  app.delete<{ Params: IdParams }>('/api/v1/snapshots/:id', {
    config: { scope: 'execute' },
    schema: { tags: ['snapshots'], summary: 'Delete a snapshot', params: IdParams, response: errorResponses(400, 401, 403, 404) },
  }, async (request) => {
    throw new FaasError('snapshot/not-found', { message: `There is no snapshot ${request.params.id}.` })
  })

  const refused = [
    { url: '/api/v1/snapshots', summary: 'Create a snapshot (501)', tag: 'snapshots', message: SNAPSHOTS },
    { url: '/api/v1/fork', summary: 'Run variants from one parent (501)', tag: 'executions', message: FORKS },
  ] as const
  for (const { url, summary, tag, message } of refused) {
    app.post(url, { config: { scope: 'execute' }, schema: { tags: [tag], summary, body: AnyBody, response: errorResponses(400, 401, 403, 413, 415, 501) } }, async () => unsupported(message))
  }
  const refusedById = [
    { url: '/api/v1/snapshots/:id/restore', summary: 'Restore a snapshot (501)', tag: 'snapshots', message: SNAPSHOTS },
    { url: '/api/v1/executions/:id/fork', summary: 'Fork an execution (501)', tag: 'executions', message: FORKS },
    { url: '/api/v1/instances/:id/pause', summary: 'Pause an instance (501)', tag: 'instances', message: PAUSE },
    { url: '/api/v1/instances/:id/resume', summary: 'Resume an instance (501)', tag: 'instances', message: PAUSE },
  ] as const
  for (const { url, summary, tag, message } of refusedById) {
    app.post<{ Params: IdParams; Body: EmptyBody }>(url, { config: { scope: 'execute' }, schema: { tags: [tag], summary, params: IdParams, response: errorResponses(400, 401, 403, 413, 415, 501) } }, async () => unsupported(message))
  }
}

function unsupported(message: string): never {
  throw new FaasError('runtime/unsupported', { message })
}
