/** A WebSocket client that keeps what it was sent. */
import { eventually, within } from '@faas-platform/testkit'
import WebSocket from 'ws'

export type Message = Readonly<Record<string, unknown>>

export interface SocketClient {
  readonly messages: readonly Message[]
  /** Close code. */
  readonly closed: Promise<number>
  send(message: Message): void
  until(wanted: (message: Message) => boolean): Promise<Message>
  close(): void
}

/** @throws Error with the status when the upgrade is refused */
export async function openSocket(url: string, headers: Readonly<Record<string, string>> = {}): Promise<SocketClient> {
  const socket = new WebSocket(url.replace(/^http/, 'ws'), { headers })
  const messages: Message[] = []
  socket.on('message', (data) => messages.push(JSON.parse(String(data)) as Message))
  const closed = new Promise<number>((resolve) => socket.on('close', (code) => resolve(code)))
  await within(10_000, 'the WebSocket to open', new Promise<void>((resolve, reject) => {
    socket.on('open', resolve)
    socket.on('unexpected-response', (_request, response) => reject(new Error(`the upgrade was answered with ${response.statusCode}`)))
    socket.on('error', reject)
  }))
  return {
    messages,
    closed,
    send: (message) => socket.send(JSON.stringify(message)),
    until: (wanted) => eventually(() => messages.find(wanted), { deadlineMs: 15_000, what: `a message; there are ${JSON.stringify(messages)}` }),
    close: () => socket.close(),
  }
}
