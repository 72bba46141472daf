/** Stored images: list, pull, import, remove. */
import { access } from 'node:fs/promises'
import type { ImageStore, StoredImage } from '@faas-platform/core'
import { FaasError } from '@faas-platform/core'
import { invalidRequest, maybe, sseFrame, timestamp } from '@faas-platform/protocol'
import type { FastifyInstance } from 'fastify'
import type { Static } from 'typebox'
import Type from 'typebox'
import type { GatewayContext } from '../context.js'
import { EventStream, wantsEventStream } from '../event-stream.js'
import { errorResponses } from '../openapi.js'
import { sendError } from '../errors.js'

const ImageReply = Type.Object(
  { store: Type.String(), reference: Type.String(), digest: Type.String(), size_bytes: Type.Integer(), created_at: Type.String({ format: 'date-time' }), stand_in: Type.Boolean() },
  { title: 'Image' },
)
type ImageReply = Static<typeof ImageReply>

const StoreField = Type.Optional(Type.String({ maxLength: 32, description: 'Family of the store: `oci` or `docker`. Default: the first.' }))
const PullBody = Type.Object(
  { reference: Type.String({ minLength: 1, maxLength: 1024 }), pull: Type.Optional(Type.Unsafe<'missing' | 'always'>({ type: 'string', enum: ['missing', 'always'], description: 'Default `always`.' })), store: StoreField },
  { additionalProperties: true, title: 'PullImageRequest' },
)
type PullBody = Static<typeof PullBody>
const PulledReply = Type.Object({ store: Type.String(), reference: Type.String(), digest: Type.String(), size_bytes: Type.Integer(), stand_in: Type.Boolean() }, { title: 'PulledImage' })

const ImportBody = Type.Object(
  { path: Type.String({ minLength: 1, maxLength: 4096, description: 'On the gateway’s host: an OCI layout, a `docker save` tar.' }), reference: Type.Optional(Type.String({ minLength: 1, maxLength: 1024 })), store: StoreField },
  { additionalProperties: true, title: 'ImportImageRequest' },
)
type ImportBody = Static<typeof ImportBody>

const BuildBody = Type.Object(
  {
    path: Type.String({ minLength: 1, maxLength: 4096, description: 'Root file system directory on the gateway’s host.' }),
    reference: Type.String({ minLength: 1, maxLength: 1024 }),
    command: maybe(Type.Array(Type.String()), 'Default command.'),
    env: maybe(Type.Record(Type.String(), Type.String()), 'Environment of its commands.'),
    working_dir: maybe(Type.String({ maxLength: 4096 }), 'Working directory of its commands.'),
    user: maybe(Type.String({ maxLength: 256 }), '`user[:group]` of its commands.'),
    store: StoreField,
  },
  { additionalProperties: true, title: 'BuildImageRequest' },
)
type BuildBody = Static<typeof BuildBody>

const RemoveQuery = Type.Object({ reference: Type.String({ minLength: 1, maxLength: 1024 }), store: StoreField })
type RemoveQuery = Static<typeof RemoveQuery>

const tags = ['images']
const REMOVE_DEADLINE_MS = 60_000

export function imageRoutes(app: FastifyInstance, gateway: GatewayContext): void {
  app.get('/api/v1/images', {
    config: { scope: 'read' },
    schema: { tags, summary: 'List stored images', response: { 200: Type.Array(ImageReply), ...errorResponses(401, 403, 503) } },
  }, async (request) => {
    const client = gateway.disconnects.watch(request.raw.socket)
    try {
      const lists = await Promise.all([...gateway.imageStores].map(async ([store, images]) => (await images.list(client.signal)).map((image) => imageReply(store, image))))
      return lists.flat()
    } finally {
      client.done()
    }
  })

  app.post<{ Body: PullBody }>('/api/v1/images/pull', {
    config: { scope: 'images' },
    schema: {
      tags, summary: 'Pull an image from its registry', body: PullBody,
      description: 'With `accept: text/event-stream` the answer is events `progress` and then `end` or `error`.',
      response: { 200: PulledReply, ...errorResponses(400, 401, 403, 404, 413, 415, 500, 502, 503) },
    },
  }, async (request, reply) => {
    const [name, store] = storeOf(gateway, request.body.store)
    const client = gateway.disconnects.watch(request.raw.socket)
    const stream = wantsEventStream(request) ? new EventStream(gateway, request, reply) : undefined
    try {
      stream?.start()
      const image = await store.resolve(request.body.reference, {
        pull: request.body.pull ?? 'always',
        signal: client.signal,
        onProgress: (progress) => {
          if (client.signal.aborted) return
          // Progress is only worth sending now: nobody waits for a slow reader of it.
          void Promise.resolve(stream?.send(sseFrame('progress', { layer: progress.layer, phase: progress.phase, current_bytes: progress.currentBytes, total_bytes: progress.totalBytes }))).catch(
            (error: unknown) => request.log.debug({ err: error }, 'progress not sent'),
          )
        },
      })
      gateway.executor.invalidateImages()
      const answer = { store: name, reference: image.reference, digest: image.digest, size_bytes: image.sizeBytes, stand_in: image.standIn }
      if (stream === undefined) return answer
      await stream.send(sseFrame('end', answer))
    } catch (thrown) {
      if (stream?.started === true) await stream.error(thrown, request.id)
      else await sendError(request, reply, thrown, gateway.counters)
    } finally {
      client.done()
      stream?.close()
    }
    return reply
  })

  app.post<{ Body: ImportBody }>('/api/v1/images/import', {
    // Reads any file of the host that the gateway can read.
    config: { scope: 'admin' },
    schema: { tags, summary: 'Import an image archive of the host', body: ImportBody, response: { 200: Type.Array(ImageReply), ...errorResponses(400, 401, 403, 404, 413, 415, 500, 502, 503) } },
  }, async (request) => {
    const [name, store] = storeOf(gateway, request.body.store)
    await demandPath(request.body.path)
    const client = gateway.disconnects.watch(request.raw.socket)
    try {
      const { reference } = request.body
      const images = await store.importArchive(request.body.path, { signal: client.signal, ...(reference !== undefined && { reference }) })
      gateway.executor.invalidateImages()
      return images.map((image) => imageReply(name, image))
    } finally {
      client.done()
    }
  })

  app.post<{ Body: BuildBody }>('/api/v1/images/build', {
    config: { scope: 'admin' },
    schema: { tags, summary: 'Make an image of a directory of the host', body: BuildBody, response: { 200: ImageReply, ...errorResponses(400, 401, 403, 404, 413, 415, 500, 501, 503) } },
  }, async (request) => {
    const [name, store] = storeOf(gateway, request.body.store)
    await demandPath(request.body.path)
    const client = gateway.disconnects.watch(request.raw.socket)
    try {
      const { path, reference, command, env, working_dir: workingDir, user } = request.body
      const image = await store.buildFromRootfs(path, {
        reference, signal: client.signal,
        config: { env: env ?? {}, entrypoint: [], cmd: command ?? ['/bin/sh'], workingDir: workingDir ?? '/', user: user ?? '', labels: {} },
      })
      gateway.executor.invalidateImages()
      return imageReply(name, image)
    } finally {
      client.done()
    }
  })

  app.delete<{ Querystring: RemoveQuery }>('/api/v1/images', {
    config: { scope: 'images' },
    schema: { tags, summary: 'Remove an image', querystring: RemoveQuery, response: { 204: Type.Null(), ...errorResponses(400, 401, 403, 404, 409, 503) } },
  }, async (request, reply) => {
    const [, store] = storeOf(gateway, request.query.store)
    const signal = AbortSignal.timeout(REMOVE_DEADLINE_MS)
    const { digest } = await store.resolve(request.query.reference, { pull: 'never', signal })
    // Idle sandboxes of the pool would keep it in use.
    await gateway.executor.releaseImage(digest)
    await store.remove(request.query.reference, signal)
    gateway.executor.invalidateImages()
    return reply.code(204).send()
  })
}

/** @throws FaasError `request/invalid` */
async function demandPath(path: string): Promise<void> {
  if (!path.startsWith('/') || path.includes('\0')) throw invalidRequest([{ path: '/path', message: 'must be an absolute path' }])
  try {
    await access(path)
  } catch {
    throw invalidRequest([{ path: '/path', message: 'must name something that the gateway can read' }])
  }
}

/** @throws FaasError `request/invalid`, `store/unavailable` */
function storeOf(gateway: GatewayContext, name: string | undefined): readonly [string, ImageStore] {
  const found = name === undefined ? [...gateway.imageStores][0] : ([name, gateway.imageStores.get(name)] as const)
  if (found?.[1] !== undefined) return [found[0], found[1]]
  if (name === undefined) throw new FaasError('store/unavailable', { message: 'No image store is usable on this host.' })
  throw new FaasError('request/invalid', { message: `There is no image store "${name}".`, details: { stores: [...gateway.imageStores.keys()] } })
}

function imageReply(store: string, image: StoredImage): ImageReply {
  return { store, reference: image.reference, digest: image.digest, size_bytes: image.sizeBytes, created_at: timestamp(image.createdAtMs), stand_in: image.standIn }
}
