import { eventually, within } from '@faas-platform/testkit'
import { describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import type { Json, Rig } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'

interface Client {
  readonly messages: Json[]
  readonly closed: Promise<number>
  send(message: unknown): void
  until(wanted: (message: Json) => boolean): Promise<Json>
  close(): void
}

async function open(rig: Rig, path: string): Promise<Client> {
  const socket = new WebSocket(`ws://127.0.0.1:${rig.port}${path}`)
  const messages: Json[] = []
  socket.on('message', (data) => messages.push(JSON.parse(String(data))))
  const closed = new Promise<number>((resolve) => socket.on('close', (code) => resolve(code)))
  await within(5000, 'the WebSocket to open', new Promise((resolve, reject) => {
    socket.on('open', resolve)
    socket.on('error', reject)
  }))
  return {
    messages, closed,
    send: (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
    until: (wanted) => eventually(() => messages.find(wanted), { what: `a message; there are ${JSON.stringify(messages)}` }),
    close: () => socket.close(),
  }
}

describe('WebSocket /api/v1/executions/:id/stream', () => {
  it('follows an execution to its exit and closes', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo a; echo b >&2; exit 4', async: true })
    const client = await open(rig, `/api/v1/executions/${body['request_id']}/stream`)
    expect(await client.closed).toBe(1000)
    expect(client.messages.filter((message) => message.type === 'stdout').map((message) => message.data).join('')).toBe('a\n')
    expect(client.messages.at(-1)).toMatchObject({ type: 'exit', code: 4, outcome: 'exited' })
  })

  it('refuses an id that is not there with a message and 1008', async () => {
    await using rig = await makeRig()
    const client = await open(rig, '/api/v1/executions/nope/stream')
    expect(await client.closed).toBe(1008)
    expect(client.messages).toMatchObject([{ type: 'error', error: { code: 'execution/not-found' } }])
  })
})

describe('WebSocket /api/v1/containers/:id/stream', () => {
  it('runs commands in an instance, tells its state and stops it', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', { name: 'dev' })
    const client = await open(rig, `/api/v1/containers/${body['instance_id']}/stream`)
    client.send({ type: 'exec', command: 'echo kept > /tmp/f; echo out; echo err >&2' })
    expect((await client.until((message) => message.name === 'command_end')).data).toMatchObject({ code: 0, outcome: 'exited' })
    expect(client.messages.filter((message) => message.type === 'stdout').map((message) => message.data).join('')).toBe('out\n')
    expect(client.messages.filter((message) => message.type === 'stderr').map((message) => message.data).join('')).toBe('err\n')
    client.send({ type: 'exec', command: ['cat', '/tmp/f'] })
    await client.until((message) => message.data === 'kept\n')
    client.send({ type: 'get_state' })
    expect((await client.until((message) => message.name === 'state')).data).toMatchObject({ status: 'RUNNING', running: true, paused: false })
    client.send({ type: 'stop' })
    await client.until((message) => message.type === 'exit' && message.outcome === 'stopped')
    expect((await rig.get(`/api/v1/instances/${body['id']}`)).body.status).toBe('stopped')
    client.close()
  })

  it('attaches to a running persistent execution by its request id, as the original demo does', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo up; sleep 60', mode: 'persistent', async: true })
    const client = await open(rig, `/api/v1/containers/${body['request_id']}/stream`)
    await client.until((message) => message.type === 'stdout' && message.data === 'up\n')
    client.send({ type: 'exec', command: 'echo beside' })
    await client.until((message) => message.type === 'stdout' && message.data === 'beside\n')
    client.send({ type: 'stop' })
    await client.until((message) => message.type === 'exit')
    await eventually(() => rig.driver.live().processes === 0)
    client.close()
  })

  it('says exit once, when the instance ends, also where the command that made it ended before', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo over', mode: 'persistent' })
    const client = await open(rig, `/api/v1/containers/${body['request_id']}/stream`)
    await client.until((message) => message.name === 'command_end' && message.data.execution_id === body['request_id'])
    client.send({ type: 'exec', command: 'echo more; exit 3' })
    await client.until((message) => message.name === 'command_end' && message.data.code === 3)
    client.send({ type: 'stop' })
    await client.until((message) => message.type === 'exit')
    expect(client.messages.filter((message) => message.type === 'exit')).toEqual([{ type: 'exit', code: 0, outcome: 'stopped' }])
    client.close()
  })

  it('opens no more sockets than the configuration allows', async () => {
    await using rig = await makeRig({ env: { FAAS_MAX_STREAMS: '1' } })
    const { body } = await rig.post('/api/v1/instances', {})
    const path = `/api/v1/containers/${body['id']}/stream`
    const first = await open(rig, path)
    const second = await open(rig, path)
    expect(await second.closed).toBe(1013)
    expect(second.messages).toMatchObject([{ type: 'error', error: { code: 'admission/queue-full' } }])
    first.close()
    await first.closed
    const third = await open(rig, path)
    third.send({ type: 'exec', command: 'echo room' })
    await third.until((message) => message.data === 'room\n')
    third.close()
  })

  it('answers what it can not do and what it does not understand, and goes on', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', {})
    const client = await open(rig, `/api/v1/containers/${body['id']}/stream`)
    client.send('not json')
    await client.until((message) => message.error?.code === 'request/malformed-json')
    client.send({ type: 'dance' })
    await client.until((message) => message.error?.code === 'request/invalid')
    client.send({ type: 'checkpoint', name: null })
    await client.until((message) => message.error?.code === 'runtime/unsupported')
    client.send({ type: 'exec', command: 'echo still here' })
    await client.until((message) => message.data === 'still here\n')
    client.close()
  })

  it('ends the command of a client that goes away', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', {})
    const idle = rig.driver.live().processes
    const client = await open(rig, `/api/v1/containers/${body['id']}/stream`)
    client.send({ type: 'exec', command: 'sleep 60' })
    await eventually(() => rig.driver.live().processes > idle)
    client.close()
    await eventually(() => rig.driver.live().processes === idle)
  })

  it('attaches to nothing that is not there', async () => {
    await using rig = await makeRig()
    const client = await open(rig, '/api/v1/containers/some-container-of-the-host/stream')
    expect(await client.closed).toBe(1008)
    expect(client.messages[0].error.code).toBe('execution/not-found')
  })
})
