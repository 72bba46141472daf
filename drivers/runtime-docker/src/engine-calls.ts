/** The driver's calls to the engine, each with its own deadline and reading of "no". */
import type { EngineClient } from './engine-client.js'
import { segment } from './engine-client.js'
import { EngineError, isEngineStatus } from './engine-error.js'
import { shape, text, type Shape } from './engine-shape.js'

/** Making and starting a container takes a tenth of a second; a loaded engine may take far longer. */
const CREATE_DEADLINE_MS = 60_000
const START_DEADLINE_MS = 60_000
const QUICK_DEADLINE_MS = 10_000
const LIST_DEADLINE_MS = 30_000

const container = (id: string, action = ''): string => `/containers/${segment(id)}${action}`

/** The new container's id. */
export async function createContainer(client: EngineClient, name: string, body: unknown): Promise<string> {
  const made = shape(await client.json({ method: 'POST', path: '/containers/create', query: { name }, json: body, deadlineMs: CREATE_DEADLINE_MS }), 'container')
  return text(made, 'Id')
}

export async function startContainer(client: EngineClient, id: string): Promise<void> {
  await client.json({ method: 'POST', path: container(id, '/start'), deadlineMs: START_DEADLINE_MS })
}

export async function inspectContainer(client: EngineClient, id: string, options: { readonly size?: boolean } = {}): Promise<Shape> {
  const query = { size: options.size === true ? true : undefined }
  return shape(await client.json({ path: container(id, '/json'), query, deadlineMs: options.size === true ? LIST_DEADLINE_MS : QUICK_DEADLINE_MS }), 'container')
}

export async function pauseContainer(client: EngineClient, id: string, wanted: 'pause' | 'unpause'): Promise<void> {
  await client.json({ method: 'POST', path: container(id, `/${wanted}`), deadlineMs: QUICK_DEADLINE_MS })
}

export async function updateContainer(client: EngineClient, id: string, fields: unknown): Promise<void> {
  await client.json({ method: 'POST', path: container(id, '/update'), json: fields, deadlineMs: QUICK_DEADLINE_MS })
}

/** SIGKILL to every process; fine when there is none. */
export async function killContainer(client: EngineClient, id: string): Promise<void> {
  try {
    await client.json({ method: 'POST', path: container(id, '/kill'), query: { signal: 'SIGKILL' }, deadlineMs: QUICK_DEADLINE_MS })
  } catch (error) {
    if (!isEngineStatus(error, 404, 409)) throw error // gone, or not running
  }
}

/** Waits until it runs no more. */
export async function waitUntilStopped(client: EngineClient, id: string, deadlineMs: number): Promise<void> {
  try {
    await client.json({ method: 'POST', path: container(id, '/wait'), query: { condition: 'not-running' }, deadlineMs })
  } catch (error) {
    if (!isEngineStatus(error, 404)) throw error
  }
}

export interface RemoveOptions {
  readonly deadlineMs: number
  readonly delay: (ms: number) => Promise<void>
  readonly nowMs: () => number
}

const REMOVE_RETRY_MS_MIN = 20
const REMOVE_RETRY_MS_MAX = 500
/** An engine that restarts is back by then; for one that is gone there is `reclaim`. */
const UNREACHABLE_MS_MAX = 5_000

/**
 * Ends a container and frees all that is its own, anonymous volumes too. Returns when it is gone.
 * Idempotent; a removal that is already under way is waited for, and a busy mount is tried again.
 */
export async function removeContainer(client: EngineClient, id: string, options: RemoveOptions): Promise<void> {
  const startedMs = options.nowMs()
  const until = startedMs + options.deadlineMs
  let retryMs = REMOVE_RETRY_MS_MIN
  for (;;) {
    try {
      await client.json({ method: 'DELETE', path: container(id), query: { force: true, v: true }, deadlineMs: Math.max(1, until - options.nowMs()) })
      return
    } catch (error) {
      if (isEngineStatus(error, 404)) return
      const unreachable = error instanceof EngineError && error.kind === 'unreachable'
      const last = unreachable ? Math.min(until, startedMs + UNREACHABLE_MS_MAX) : until
      if (!(unreachable || isEngineStatus(error, 409, 500)) || options.nowMs() + retryMs > last) throw error
    }
    await options.delay(retryMs)
    retryMs = Math.min(REMOVE_RETRY_MS_MAX, retryMs * 2)
  }
}

/** All containers with these labels, running or not. */
export async function listContainers(client: EngineClient, labels: readonly string[], signal: AbortSignal): Promise<readonly Shape[]> {
  const filters = JSON.stringify({ label: labels })
  const answer = await client.json({ path: '/containers/json', query: { all: true, filters }, signal, deadlineMs: LIST_DEADLINE_MS })
  if (!Array.isArray(answer)) throw new EngineError('protocol', 'The engine did not answer with a list of containers.')
  return answer.map((entry: unknown) => shape(entry, 'container'))
}
