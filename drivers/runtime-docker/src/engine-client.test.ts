import { Readable } from 'node:stream'
import { FaasError } from '@faas-platform/core'
import { describe, expect, test, vi } from 'vitest'
import { EngineClient } from './engine-client.js'
import { EngineError, toDriverError, type EngineErrorKind } from './engine-error.js'
import { readJsonLines } from './json-lines.js'
import { engineDouble, json, type Answer } from './testing/engine-double.js'

const never = new AbortController().signal

async function failure(answer: Answer, call: (client: EngineClient) => Promise<unknown>): Promise<unknown> {
  await using double = await engineDouble(answer)
  const client = new EngineClient({ socketPath: double.socketPath })
  try {
    return await call(client).then(
      () => undefined,
      (error: unknown) => error,
    )
  } finally {
    client.close()
  }
}

function kindOf(error: unknown): EngineErrorKind | undefined {
  return error instanceof EngineError ? error.kind : undefined
}

describe('a call to the engine', () => {
  test('without a socket fails as unreachable, and as unavailable at the edge', async () => {
    const client = new EngineClient({ socketPath: '/nonexistent/engine.sock' })
    const error = await client.json({ path: '/version' }).catch((thrown: unknown) => thrown)
    expect(kindOf(error)).toBe('unreachable')
    const mapped = toDriverError(error, 'sandbox/create-failed', 'x')
    expect(mapped instanceof FaasError && mapped.code).toBe('runtime/unavailable')
  })

  test('carries the reason and the status of a refusal', async () => {
    const error = await failure((_request, response) => json(response, { message: 'no such thing' }, 404), (client) => client.json({ path: '/x' }))
    expect(error).toMatchObject({ kind: 'status', status: 404, message: 'no such thing' })
  })

  test('takes a plain-text refusal, and an empty one', async () => {
    expect(await failure((_request, response) => response.writeHead(500).end('out of luck'), (client) => client.json({ path: '/x' }))).toMatchObject({ status: 500, message: 'out of luck' })
    expect(await failure((_request, response) => response.writeHead(503).end(), (client) => client.json({ path: '/x' }))).toMatchObject({ kind: 'status', status: 503 })
  })

  test.each([
    ['half a JSON text', '{"a": [1, 2'],
    ['something else', '<html>'],
  ])('answered with %s is a protocol error', async (_name, body) => {
    expect(kindOf(await failure((_request, response) => response.end(body), (client) => client.json({ path: '/x' })))).toBe('protocol')
  })

  test('whose answer breaks off is unreachable', async () => {
    const answer: Answer = (_request, response) => {
      response.writeHead(200, { 'Content-Length': '100' })
      response.write('{"a":')
      setTimeout(() => response.socket?.destroy(), 10)
    }
    expect(kindOf(await failure(answer, (client) => client.json({ path: '/x' })))).toBe('unreachable')
  })

  test('that is never answered ends at its deadline', async () => {
    const startedMs = performance.now()
    expect(kindOf(await failure(() => undefined, (client) => client.json({ path: '/x', deadlineMs: 100 })))).toBe('timeout')
    expect(performance.now() - startedMs).toBeLessThan(2_000)
  })

  test('whose body stalls ends at the same deadline', async () => {
    const answer: Answer = (_request, response) => {
      response.writeHead(200)
      response.write('{')
    }
    expect(kindOf(await failure(answer, (client) => client.json({ path: '/x', deadlineMs: 150 })))).toBe('timeout')
  })

  test('ends with the reason of its signal, before and during', async () => {
    const reason = new Error('enough')
    expect(await failure(() => undefined, (client) => client.json({ path: '/x', signal: AbortSignal.abort(reason) }))).toBe(reason)
    const abort = new AbortController()
    setTimeout(() => abort.abort(reason), 20)
    expect(await failure(() => undefined, (client) => client.json({ path: '/x', signal: abort.signal }))).toBe(reason)
  })

  test('does not read an endless body', async () => {
    const answer: Answer = (_request, response) => {
      const noise = Buffer.alloc(1024 * 1024, 'x')
      const more = (): void => {
        while (!response.destroyed && response.write(noise)) continue
      }
      response.on('drain', more)
      more()
    }
    expect(kindOf(await failure(answer, (client) => client.json({ path: '/x' })))).toBe('protocol')
  })

  test('is repeated once when a kept connection died, but only if it changes nothing', async () => {
    let answered = 0
    await using double = await engineDouble((request, response) => {
      answered++
      if (answered === 2 || answered === 5) {
        request.socket.destroy()
        return
      }
      json(response, { answered })
    })
    const client = new EngineClient({ socketPath: double.socketPath })
    expect(await client.json({ path: '/a' })).toEqual({ answered: 1 })
    expect(await client.json({ path: '/b' })).toEqual({ answered: 3 })
    expect(await client.json({ path: '/c' })).toEqual({ answered: 4 })
    const error = await client.json({ method: 'POST', path: '/d' }).catch((thrown: unknown) => thrown)
    expect(kindOf(error)).toBe('unreachable')
    expect(double.requests.filter((line) => line.startsWith('POST'))).toHaveLength(1)
    client.close()
  })

  test('with a body whose source fails reports that failure', async () => {
    const reason = new Error('the disk is gone')
    const body = Readable.from((async function* () {
      yield Buffer.from('x')
      await Promise.resolve()
      throw reason
    })())
    expect(await failure((request) => request.resume(), (client) => client.json({ method: 'POST', path: '/x', body }))).toBe(reason)
  })
})

describe('a hijacked connection', () => {
  test('carries raw bytes both ways, and what came with the head', async () => {
    await using double = await engineDouble((_request, response) => response.end(), (socket) => {
      socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly')
      socket.on('data', (chunk: Buffer) => socket.write(chunk.toString().toUpperCase()))
      socket.on('error', () => undefined)
    })
    const client = new EngineClient({ socketPath: double.socketPath })
    const socket = await client.hijack({ method: 'POST', path: '/attach' })
    socket.write('hello')
    let seen = ''
    for await (const chunk of socket) {
      seen += String(chunk)
      if (seen.length >= 10) break
    }
    expect(seen).toBe('earlyHELLO')
  })

  test('that the engine refuses or answers plainly is an error', async () => {
    expect(await failure((_request, response) => json(response, { message: 'no such container' }, 404), (client) => client.hijack({ method: 'POST', path: '/attach' }))).toMatchObject({ status: 404 })
    expect(kindOf(await failure((_request, response) => json(response, {}), (client) => client.hijack({ method: 'POST', path: '/attach' })))).toBe('protocol')
  })
})

describe('a progress stream', () => {
  async function lines(answer: Answer, signal = never, idleMsMax = 1_000): Promise<{ readonly seen: unknown[]; readonly error: unknown }> {
    await using double = await engineDouble(answer)
    const client = new EngineClient({ socketPath: double.socketPath })
    const seen: unknown[] = []
    const reply = await client.stream({ method: 'POST', path: '/pull' })
    const error = await readJsonLines(reply, { signal, idleMsMax }, (line) => seen.push(line)).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    return { seen, error }
  }

  test('is read line by line, however it is cut', async () => {
    const { seen, error } = await lines((_request, response) => {
      response.write('{"a":1}\r\n{"b"')
      setTimeout(() => response.end(':2}\n\n{"c":3}'), 20)
    })
    expect(error).toBeUndefined()
    expect(seen).toEqual([{ a: 1 }, { b: 2 }, { c: 3 }])
  })

  test('ends with the failure that a line reports', async () => {
    const { seen, error } = await lines((_request, response) => response.end('{"a":1}\n{"errorDetail":{"message":"no space"},"error":"no space"}\n'))
    expect(seen).toEqual([{ a: 1 }])
    expect(error).toMatchObject({ kind: 'status', message: 'no space' })
  })

  test('that stalls, breaks off, or is aborted ends so', async () => {
    expect((await lines((_request, response) => void response.write('{"a":1}\n'), never, 100)).error).toMatchObject({ kind: 'timeout' })
    const broken = await lines((_request, response) => {
      response.write('{"a":1}\n')
      setTimeout(() => response.socket?.destroy(), 20)
    })
    expect(broken.error).toMatchObject({ kind: 'unreachable' })
    const abort = new AbortController()
    const reason = new Error('enough')
    setTimeout(() => abort.abort(reason), 30)
    expect((await lines((_request, response) => void response.write('{"a":1}\n'), abort.signal)).error).toBe(reason)
  })
})

test('a double that died is noticed by everybody who waits', async () => {
  let upgrades = 0
  await using double = await engineDouble(() => undefined, () => { upgrades++ })
  const client = new EngineClient({ socketPath: double.socketPath })
  const waiting = [client.json({ path: '/a' }), client.stream({ path: '/b' }), client.hijack({ method: 'POST', path: '/c' })].map((work) => work.catch((error: unknown) => kindOf(error)))
  await vi.waitFor(() => { expect(double.requests.length + upgrades).toBe(3) })
  double.die()
  expect(await Promise.all(waiting)).toEqual(['unreachable', 'unreachable', 'unreachable'])
})
