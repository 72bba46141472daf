/**
 * Lets only WebSockets upgrade. Node hands every request with an `upgrade` header over as a bare socket, once
 * somebody listens for one, yet some clients offer `upgrade: h2c` with every request (Java's HttpClient,
 * `curl --http2`). An offer that is not taken is to be ignored.
 * @see RFC 9110 section 7.8
 */
import { Buffer } from 'node:buffer'
import type { IncomingMessage, Server } from 'node:http'
import type { Duplex } from 'node:stream'

/** Not passed on: the offer itself, and `connection`, which lists it. */
const OFFER_HEADERS = new Set(['upgrade', 'connection', 'http2-settings'])

export function ignoreOtherUpgrades(server: Server): void {
  const listeners = server.listeners('upgrade') as ((request: IncomingMessage, socket: Duplex, head: Buffer) => void)[]
  server.removeAllListeners('upgrade')
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (request.headers.upgrade?.toLowerCase() === 'websocket') {
      for (const listener of listeners) listener.call(server, request, socket, head)
      return
    }
    // The socket starts anew, as if the request had come without its offer.
    socket.unshift(Buffer.concat([headOf(request), head]))
    server.emit('connection', socket)
  })
}

function headOf({ method, url, httpVersion, headers, rawHeaders }: IncomingMessage): Buffer {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? ''
    if (!OFFER_HEADERS.has(name.toLowerCase())) lines.push(`${name}: ${rawHeaders[index + 1] ?? ''}`)
  }
  if (/\bclose\b/i.test(headers.connection ?? '')) lines.push('connection: close')
  // Node keeps header bytes as latin1.
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
}
