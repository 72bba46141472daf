/** An HTTP server on a unix socket that misbehaves like a broken engine. For faults that a real engine can not be asked for. */
import { mkdtemp, rm } from 'node:fs/promises'
import http from 'node:http'
import type { Duplex } from 'node:stream'
import { tmpdir } from 'node:os'
import path from 'node:path'

export type Answer = (request: http.IncomingMessage, response: http.ServerResponse) => void

export interface EngineDouble extends AsyncDisposable {
  readonly socketPath: string
  readonly requests: readonly string[]
  /** Closes every connection and listens no more. */
  die(): void
}

export async function engineDouble(answer: Answer, onUpgrade?: (socket: Duplex) => void): Promise<EngineDouble> {
  const dir = await mkdtemp(path.join(tmpdir(), 'faas-engine-double-'))
  const socketPath = path.join(dir, 'engine.sock')
  const requests: string[] = []
  const server = http.createServer((request, response) => {
    requests.push(`${request.method ?? ''} ${request.url ?? ''}`)
    answer(request, response)
  })
  const sockets = new Set<Duplex>()
  server.on('connection', (socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  if (onUpgrade !== undefined) server.on('upgrade', (_request, socket) => onUpgrade(socket))
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  const die = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy() // upgraded ones too, which the server no longer counts
  }
  return {
    socketPath,
    requests,
    die,
    async [Symbol.asyncDispose]() {
      die()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

export function json(response: http.ServerResponse, body: unknown, status = 200): void {
  response.writeHead(status, { 'Content-Type': 'application/json' })
  response.end(JSON.stringify(body))
}
