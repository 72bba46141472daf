/**
 * Connects to the agent's socket inside a container of this host, by way of the container's first process.
 *
 * I1. The guest, or its image, may have put links anywhere below its root. So the way down is walked one directory at a
 *     time without following any, and the socket is opened by its descriptor: no link can lead to a socket of the host.
 */
import { constants } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import net from 'node:net'
import { FaasError, type Clock } from '@faas-platform/core'
import { AGENT_DIR, AGENT_RUN_DIR, AGENT_SOCKET_NAME } from './container-config.js'

/** Linux's O_PATH, the same on every architecture; Node does not name it. */
const O_PATH = 0o10000000
const POLL_MS_MIN = 1
const POLL_MS_MAX = 20

/** Waits for the socket to appear and connects. @throws FaasError `sandbox/create-timeout`; the signal's reason */
export async function connectAgentSocket(pid: number, options: { readonly clock: Clock; readonly deadlineMs: number; readonly signal: AbortSignal }): Promise<net.Socket> {
  const { clock, signal } = options
  const until = clock.monotonicMs() + options.deadlineMs
  let pollMs = POLL_MS_MIN
  for (;;) {
    signal.throwIfAborted()
    try {
      return await connectOnce(pid)
    } catch (error) {
      // ENOENT: not mounted or not bound yet; ECONNREFUSED: bound, not listening yet. Everything else stays as it is.
      const code = (error as NodeJS.ErrnoException).code
      if (code === 'ENOTDIR' || code === 'ELOOP') {
        throw new FaasError('sandbox/create-failed', { message: `The image has something else where the platform mounts its directory ${AGENT_DIR}.`, cause: error })
      }
      if (code !== 'ENOENT' && code !== 'ECONNREFUSED') throw error
      if (clock.monotonicMs() > until) {
        throw new FaasError('sandbox/create-timeout', { message: 'The guest agent did not start in time.', cause: error })
      }
    }
    await clock.delay(pollMs, signal)
    pollMs = Math.min(POLL_MS_MAX, pollMs * 1.5)
  }
}

async function connectOnce(pid: number): Promise<net.Socket> {
  const directories = AGENT_RUN_DIR.split('/').filter((part) => part !== '')
  let at = await open(`/proc/${pid}/root`, O_PATH | constants.O_DIRECTORY)
  try {
    for (const name of directories) at = await step(at, name, constants.O_DIRECTORY)
    at = await step(at, AGENT_SOCKET_NAME, 0)
    const info = await at.stat()
    if (!info.isSocket()) throw new FaasError('sandbox/create-failed', { message: 'Something else lies where the guest agent\'s socket should be.' })
    return await connect(`/proc/self/fd/${at.fd}`)
  } finally {
    await at.close()
  }
}

/** Opens `name` in the directory `from`, which is closed. I1. */
async function step(from: FileHandle, name: string, flags: number): Promise<FileHandle> {
  const next = await open(`/proc/self/fd/${from.fd}/${name}`, O_PATH | constants.O_NOFOLLOW | flags)
  await from.close()
  return next
}

function connect(path: string): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path })
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}
