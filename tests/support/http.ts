/** Plain HTTP against a gateway, without the SDK between: status, headers and body as they are on the wire. */

export interface Reply {
  readonly status: number
  readonly headers: Headers
  /** The parsed JSON object; empty when the answer is none. */
  readonly body: Readonly<Record<string, unknown>>
  readonly text: string
}

export interface CallOptions {
  readonly method?: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface ServerSentEvent {
  readonly id: string | null
  readonly event: string
  readonly data: Readonly<Record<string, unknown>>
}

export async function call(url: string, options: CallOptions = {}): Promise<Reply> {
  const response = await send(url, options)
  const text = await response.text()
  const isJson = text !== '' && response.headers.get('content-type')?.includes('json') === true
  return { status: response.status, headers: response.headers, body: isJson ? (JSON.parse(text) as Record<string, unknown>) : {}, text }
}

/** `POST /api/v1/execute` of the gateway at `url`. */
export function execute(url: string, body: object, options: CallOptions = {}): Promise<Reply> {
  return call(`${url}/api/v1/execute`, { ...options, method: 'POST', body })
}

/** Yields events as they arrive; leaving the loop closes the connection. */
export async function* events(url: string, options: CallOptions = {}): AsyncGenerator<ServerSentEvent, void, undefined> {
  const response = await send(url, { ...options, headers: { accept: 'text/event-stream', ...options.headers } })
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}: ${await response.text()}`)
  if (response.body === null) throw new Error('an event stream has a body')
  let rest = ''
  const decoder = new TextDecoder()
  for await (const chunk of response.body) {
    rest += decoder.decode(chunk, { stream: true })
    for (let end = rest.indexOf('\n\n'); end !== -1; end = rest.indexOf('\n\n')) {
      const frame = rest.slice(0, end)
      rest = rest.slice(end + 2)
      const field = (name: string): string | null => new RegExp(`^${name}: ?(.*)$`, 'm').exec(frame)?.[1] ?? null
      const data = field('data')
      if (data !== null) yield { id: field('id'), event: field('event') ?? 'message', data: JSON.parse(data) as Record<string, unknown> }
    }
  }
}

function send(url: string, options: CallOptions): Promise<Response> {
  return fetch(url, {
    method: options.method ?? (options.body === undefined ? 'GET' : 'POST'),
    headers: { ...(options.body !== undefined && { 'content-type': 'application/json' }), ...options.headers },
    ...(options.body !== undefined && { body: typeof options.body === 'string' ? options.body : JSON.stringify(options.body) }),
    ...(options.signal !== undefined && { signal: options.signal }),
  })
}
