/**
 * Tells a request that its client went away.
 *
 * I1. One listener per socket, however many pipelined requests wait on it.
 * I2. After `done`, a closing socket concerns the request no more: with keep-alive it closes long after the reply.
 */
import type { Socket } from 'node:net'
import { FaasError } from '@faas-platform/core'

export interface Watched {
  readonly signal: AbortSignal
  done(): void
}

export class DisconnectWatch {
  readonly #bySocket = new WeakMap<Socket, Set<AbortController>>()

  watch(socket: Socket): Watched {
    const controller = new AbortController()
    if (socket.destroyed) controller.abort(gone())
    const waiting = this.#waitingOn(socket)
    waiting.add(controller)
    return {
      signal: controller.signal,
      done: () => {
        waiting.delete(controller) // I2
      },
    }
  }

  #waitingOn(socket: Socket): Set<AbortController> {
    const known = this.#bySocket.get(socket)
    if (known !== undefined) return known
    const waiting = new Set<AbortController>()
    this.#bySocket.set(socket, waiting)
    // I1
    socket.once('close', () => {
      for (const controller of waiting) controller.abort(gone())
      waiting.clear()
    })
    return waiting
  }
}

function gone(): FaasError {
  return new FaasError('execution/cancelled', { message: 'The client went away.' })
}
