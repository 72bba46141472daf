/** Assembles the HTTP application over an executor. Names no driver and opens nothing. */
import type { Config } from '@faas-platform/config'
import type { Clock, Ids, ImageStore, Ledger } from '@faas-platform/core'
import { FaasError } from '@faas-platform/core'
import { errorBody } from '@faas-platform/protocol'
import websocket from '@fastify/websocket'
import type { FastifyBaseLogger, FastifyInstance, FastifyReply } from 'fastify'
import Fastify, { LogController } from 'fastify'
import { KeyRing } from './access/keys.js'
import { areKeysDemanded } from './access/origin.js'
import { installBodies } from './body.js'
import type { GatewayContext, ServedExecutor } from './context.js'
import { wirePolicy } from './context.js'
import { DisconnectWatch } from './disconnect.js'
import { errorOf, sendError } from './errors.js'
import { installHooks } from './hooks.js'
import { installMissingRoutes } from './missing-route.js'
import { installOpenApi } from './openapi.js'
import { executeRoutes } from './routes/execute.js'
import { executionRoutes } from './routes/executions.js'
import { imageRoutes } from './routes/images.js'
import { instanceRoutes } from './routes/instances.js'
import { keyRoutes } from './routes/keys.js'
import { observationRoutes } from './routes/observation.js'
import { plannedRoutes } from './routes/planned.js'
import { poolRoutes } from './routes/pools.js'
import { streamRoutes } from './routes/streams.js'
import { containerRoutes } from './sockets/container-socket.js'
import { ignoreOtherUpgrades } from './sockets/upgrades.js'
import { GatewayCounters } from './telemetry/counters.js'

export interface GatewayOptions {
  readonly executor: ServedExecutor
  readonly ledger: Ledger
  readonly config: Config
  readonly clock: Clock
  readonly ids: Ids
  readonly log: FastifyBaseLogger
  /** Stores that the image routes show, by family name. */
  readonly imageStores?: ReadonlyMap<string, ImageStore>
  readonly version?: string
}

export interface Gateway {
  readonly app: FastifyInstance
  readonly keysDemanded: boolean
  /** From here on new work gets 503; what runs goes on. */
  startDraining(): void
}

const REQUEST_ID = /^[\w.:-]{1,128}$/
/** A WebSocket frame: commands and input, not files. */
const SOCKET_FRAME_BYTES_MAX = 2 * 1024 * 1024
/** Longest wait for the whole head and body of a request; runs themselves may last longer. */
const REQUEST_RECEIVE_MS = 120_000

export async function buildGateway(options: GatewayOptions): Promise<Gateway> {
  const { config, clock, ids, log } = options
  const counters = new GatewayCounters()
  const keysDemanded = areKeysDemanded(config)
  const gateway: GatewayContext = {
    ...options,
    policy: wirePolicy(config),
    imageStores: options.imageStores ?? new Map(),
    keys: new KeyRing(options.ledger, clock, (error) => log.warn({ err: error }, 'the last use of a key could not be stored')),
    keysDemanded,
    disconnects: new DisconnectWatch(),
    counters,
    startedAtMs: clock.nowMs(),
    version: options.version ?? '0.1.0',
  }

  const app = Fastify({
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    requestIdHeader: false,
    genReqId: (request) => {
      const given = request.headers['x-request-id']
      if (typeof given === 'string' && REQUEST_ID.test(given)) return given
      delete request.headers['x-request-id']
      return ids.uuid()
    },
    bodyLimit: config.bodyBytesMax,
    requestTimeout: REQUEST_RECEIVE_MS,
    exposeHeadRoutes: false,
    return503OnClosing: false,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 256 },
    frameworkErrors: (error, request, reply: FastifyReply) => {
      void reply.code(400).type('application/json').send(JSON.stringify(errorBody(errorOf(error), request.id)))
    },
    clientErrorHandler(error, socket) {
      if (!socket.writable) return
      const tooLarge = 'code' in error && error.code === 'HPE_HEADER_OVERFLOW'
      const problem = new FaasError('request/invalid', { message: tooLarge ? 'The request head is too large.' : 'The request is not valid HTTP/1.1.' })
      const body = JSON.stringify(errorBody(problem, ids.uuid()))
      socket.end(`HTTP/1.1 ${tooLarge ? '431 Request Header Fields Too Large' : '400 Bad Request'}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`)
    },
  })

  installBodies(app)
  app.setErrorHandler((error, request, reply) => sendError(request, reply, error, counters))
  installHooks(app, gateway)
  installMissingRoutes(app)
  await app.register(websocket, { options: { maxPayload: SOCKET_FRAME_BYTES_MAX } })
  await installOpenApi(app, gateway.version)
  await app.register(async (routes) => {
    executeRoutes(routes, gateway)
    executionRoutes(routes, gateway)
    streamRoutes(routes, gateway)
    containerRoutes(routes, gateway)
    instanceRoutes(routes, gateway)
    poolRoutes(routes, gateway)
    observationRoutes(routes, gateway)
    imageRoutes(routes, gateway)
    keyRoutes(routes, gateway)
    plannedRoutes(routes)
  })
  await app.ready()
  ignoreOtherUpgrades(app.server)
  return {
    app,
    keysDemanded,
    startDraining() {
      counters.draining = true
    },
  }
}
