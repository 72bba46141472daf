import { connect } from 'node:net'
import { eventually } from '@faas-platform/testkit'
import { describe, expect, it } from 'vitest'
import type { Json, Rig } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'

interface Event {
  readonly id?: string
  readonly event: string
  readonly data: Json
}

function parseEvents(text: string): Event[] {
  return text.split('\n\n').filter((block) => block !== '' && !block.startsWith(':')).map((block) => {
    const field = (name: string) => block.split('\n').find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2)
    const id = field('id')
    return { ...(id !== undefined && { id }), event: field('event') ?? '', data: JSON.parse(field('data') ?? 'null') }
  })
}

async function stream(rig: Rig, path: string, init?: RequestInit): Promise<{ readonly status: number; readonly type: string | null; readonly events: Event[] }> {
  const response = await rig.fetch(path, init)
  return { status: response.status, type: response.headers.get('content-type'), events: parseEvents(await response.text()) }
}

const post = (body: unknown, headers: Record<string, string> = {}): RequestInit => ({ method: 'POST', headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(body) })
const textOf = (events: readonly Event[], type: string) => events.filter((event) => event.event === type).map((event) => event.data.data).join('')

describe('a streamed execution', () => {
  it.each([['by header', {}, { accept: 'text/event-stream' }], ['by field', { stream: true }, {}]])('sends states, output and the end as they happen: %s', async (_name, field, headers) => {
    await using rig = await makeRig()
    const { status, type, events } = await stream(rig, '/api/v1/execute', post({ command: 'echo a; echo b >&2; exit 3', ...field }, headers))
    expect([status, type]).toEqual([200, 'text/event-stream; charset=utf-8'])
    expect(events.map((event) => Number(event.id))).toEqual(events.map((_, index) => index + (events[0]?.data.seq ?? 0)))
    expect([textOf(events, 'stdout'), textOf(events, 'stderr')]).toEqual(['a\n', 'b\n'])
    expect(events.at(-1)).toMatchObject({ event: 'end', data: { result: { exit_code: 3, stdout: 'a\n', outcome: 'exited' } } })
  })

  it('delivers output while the command still runs', async () => {
    await using rig = await makeRig()
    const response = await rig.fetch('/api/v1/execute', post({ command: 'echo first; sleep 60', stream: true }))
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    let text = ''
    while (!text.includes('first')) text += new TextDecoder().decode((await reader.read()).value)
    expect(rig.driver.live().processes).toBeGreaterThan(0)
    await reader.cancel()
    await eventually(() => rig.driver.live().processes === 0, { what: 'the command ends when its reader leaves' })
  })

  it('keeps the status of a refusal that comes before the first event', async () => {
    await using rig = await makeRig()
    const { status } = await stream(rig, '/api/v1/execute', post({ command: 'true', stream: true, mode: 'nope' }))
    expect(status).toBe(400)
  })

  it('tells a failure after the first event as an event', async () => {
    await using rig = await makeRig()
    const { status, events } = await stream(rig, '/api/v1/execute', post({ command: 'true', stream: true, image: 'nobody/nothing:1' }))
    const codes = events.map((event) => event.data.error?.code).filter(Boolean)
    expect(status === 404 || codes.includes('image/not-found')).toBe(true)
  })

  it('slows the guest when the reader is slow, instead of storing', async () => {
    await using rig = await makeRig()
    const body = JSON.stringify({ command: 'yes', stream: true, timeout_ms: 20_000, log_bytes_max: 64 * 1024 * 1024 })
    const socket = connect(rig.port, '127.0.0.1')
    socket.write(`POST /api/v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    await new Promise((resolve) => socket.once('data', resolve))
    socket.pause()
    const written = async () => ((await rig.get('/api/v1/executions')).body.executions[0].request_id as string)
    const id = await eventually(written)
    const page = async () => (await rig.get(`/api/v1/executions/${id}/logs?limit=10000`)).body.next_seq as number
    let last = -1
    await eventually(async () => {
      const now = await page()
      const still = now === last
      last = now
      return still
    }, { everyMs: 200, what: 'the guest stops writing while nobody reads' })
    expect((await rig.get(`/api/v1/executions/${id}`)).body.status).toBe('running')
    socket.destroy()
    await eventually(() => rig.driver.live().processes === 0)
  })
})

describe('GET /api/v1/executions/:id/stream', () => {
  it('replays an ended execution, resumes after Last-Event-ID, and answers 204 when nothing is left', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo one; echo two' })
    const path = `/api/v1/executions/${body['request_id']}/stream`
    const all = await stream(rig, path)
    expect(textOf(all.events, 'stdout')).toBe('one\ntwo\n')
    const end = all.events.at(-1)
    const middle = all.events[1]
    const rest = await stream(rig, path, { headers: { 'last-event-id': middle?.id ?? '' } })
    expect(rest.events.map((event) => event.id)).toEqual(all.events.slice(2).map((event) => event.id))
    expect((await stream(rig, `${path}?from_seq=${end?.id}`)).events).toHaveLength(1)
    expect((await rig.fetch(path, { headers: { 'last-event-id': end?.id ?? '' } })).status).toBe(204)
    expect((await rig.fetch(path, { headers: { 'last-event-id': 'x' } })).status).toBe(400)
  })

  it('follows an asynchronous execution to its end', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo a; sleep 0.05; echo b', async: true })
    const { events } = await stream(rig, body['links'].stream)
    expect(textOf(events, 'stdout')).toBe('a\nb\n')
    expect(events.at(-1)?.event).toBe('end')
  })
})

describe('GET /api/v1/logs/:id/stream', () => {
  it('gives whole lines without a prefix and ends with the execution', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'printf par; sleep 0.02; echo tial; printf last', async: true })
    const response = await rig.fetch(`/api/v1/logs/${body['request_id']}/stream`)
    expect(response.headers.get('content-type')).toContain('text/event-stream')
    expect(await response.text()).toBe('partial\nlast\n')
  })
})

describe('GET /api/v1/executions/:id/logs', () => {
  it('pages by cursor, as JSON and as text', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo one; sleep 0.01; echo two; sleep 0.01; echo three' })
    const path = `/api/v1/executions/${body['request_id']}/logs`
    const seen: string[] = []
    let from = 0
    for (let complete = false; !complete; ) {
      const page = (await rig.get(`${path}?from_seq=${from}&limit=2`)).body
      seen.push(...page.entries.filter((entry: Json) => entry.type === 'stdout').map((entry: Json) => entry.data))
      complete = page.complete
      from = page.next_seq
    }
    expect(seen.join('')).toBe('one\ntwo\nthree\n')
    const text = await rig.fetch(`${path}?format=text`)
    expect([await text.text(), text.headers.get('content-type')]).toEqual(['one\ntwo\nthree\n', 'text/plain; charset=utf-8'])
  })

  it('answers at once for a running execution, with what there is', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo so far; sleep 60', async: true })
    const page = await eventually(async () => {
      const { body: log } = await rig.get(`/api/v1/executions/${body['request_id']}/logs`)
      return log.entries.some((entry: Json) => entry.type === 'stdout') && log
    })
    expect(page).toMatchObject({ complete: false, status: 'running' })
    await rig.post(`/api/v1/executions/${body['request_id']}/cancel`, {})
  })

  it('waits for news when asked to', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'sleep 0.2; echo news', async: true })
    const path = `/api/v1/executions/${body['request_id']}/logs`
    await eventually(async () => (await rig.get(path)).body.status === 'running')
    const before = (await rig.get(path)).body.next_seq as number
    const page = (await rig.get(`${path}?from_seq=${before}&wait_ms=5000`)).body
    expect(page.entries.map((entry: Json) => entry.data)).toContain('news\n')
  })
})

describe('pipelined requests on one connection', () => {
  it('are all ended when the connection closes', async () => {
    await using rig = await makeRig()
    const body = JSON.stringify({ command: 'sleep 60' })
    const request = `POST /api/v1/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    const socket = connect(rig.port, '127.0.0.1')
    socket.write(request.repeat(3))
    await eventually(() => rig.driver.live().processes >= 3, { what: 'all three run' })
    socket.destroy()
    await eventually(() => rig.driver.live().processes === 0, { what: 'none runs' })
  })
})
