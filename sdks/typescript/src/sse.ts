/** Server-sent events (WHATWG HTML §9.2) from a response body. */
import { FaaSResponseError } from './errors.js'

export interface ServerSentEvent {
  readonly id: string | undefined
  readonly event: string
  readonly data: string
}

/** Longest line accepted; a server that sends more is not speaking this protocol. */
const LINE_CHARS_MAX = 16 * 1024 * 1024

/** Lines of a byte stream, without their ends, cut across chunks or not. The last line may lack its end. */
export async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = body.getReader()
  const decoder = new TextDecoder()
  let rest = ''
  try {
    for (;;) {
      const { done, value } = await reader.read()
      rest += done ? decoder.decode() : decoder.decode(value, { stream: true })
      let start = 0
      for (let end = rest.indexOf('\n', start); end !== -1; end = rest.indexOf('\n', start)) {
        yield rest.slice(start, rest[end - 1] === '\r' ? end - 1 : end)
        start = end + 1
      }
      rest = rest.slice(start)
      if (rest.length > LINE_CHARS_MAX) throw new FaaSResponseError('A line of the stream is longer than this client accepts.', { code: 'client/invalid-response', status: 200 })
      if (done) {
        if (rest !== '') yield rest
        return
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined) // of a stream that failed: the failure is on its way already
  }
}

export async function* serverSentEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerSentEvent> {
  let id: string | undefined
  let event = ''
  let data: string[] = []
  for await (const line of lines(body)) {
    if (line === '') {
      if (data.length > 0) yield { id, event: event === '' ? 'message' : event, data: data.join('\n') }
      event = ''
      data = []
      continue
    }
    if (line.startsWith(':')) continue
    const colon = line.indexOf(':')
    const field = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'data') data.push(value)
    else if (field === 'event') event = value
    else if (field === 'id') id = value
  }
}
