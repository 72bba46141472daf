import { eventually } from '@faas-platform/testkit'
import { describe, expect, it } from 'vitest'
import { makeRig } from '../test-support/rig.js'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

describe('POST /api/v1/execute', () => {
  it('answers with the eight original keys and what the original left out', async () => {
    await using rig = await makeRig()
    const { status, headers, body } = await rig.post('/api/v1/execute', { command: 'echo hello; echo oops >&2' })
    expect(status).toBe(200)
    expect(headers.get('content-type')).toContain('application/json')
    expect(body['request_id']).toMatch(UUID)
    expect(body).toMatchObject({
      exit_code: 0, stdout: 'hello\n', stderr: 'oops\n', output: 'hello\n', logs: 'oops\n', error: null,
      status: 'succeeded', outcome: 'exited', start: 'cold', image_stand_in: false, snapshot_id: null, cache_hit: false,
      stdout_truncated: false, stdout_bytes: 6,
    })
    expect(Number.isInteger(body['duration_ms']) && body['duration_ms'] >= 1).toBe(true)
    expect(body['image_digest']).toMatch(/^sha256:/)
    expect(Object.keys(body['time_budget_ms']).length).toBeGreaterThan(3)
    expect(body['container_id']).toBe(body['request_id'])
  })

  it.each(['/api/v1/execute/advanced', '/api/v1/execute-advanced'])('has the alias %s', async (path) => {
    await using rig = await makeRig()
    expect((await rig.post(path, { command: 'echo a' })).body['stdout']).toBe('a\n')
  })

  it("answers 200 with the guest's exit code when the guest fails", async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute', { command: 'exit 7' })
    expect(status).toBe(200)
    expect(body).toMatchObject({ exit_code: 7, error: 'Process exited with code 7', outcome: 'exited' })
  })

  it('runs a list as argv without a shell', async () => {
    await using rig = await makeRig()
    expect((await rig.post('/api/v1/execute', { command: ['echo', '$HOME', 'a  b'] })).body['stdout']).toBe('$HOME a  b\n')
  })

  it('answers 200 with 127 when the command does not exist', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute', { command: ['no-such-program'] })
    expect([status, body['exit_code'], body['outcome'], body['error_code']]).toEqual([200, 127, 'spawn_failed', 'execution/spawn-failed'])
  })

  it('answers 504 with everything that was captured when the command runs into its deadline', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute', { command: 'echo before; sleep 60', timeout_ms: 200 })
    expect(status).toBe(504)
    expect(body['error']).toMatchObject({ code: 'execution/deadline', details: { stdout: 'before\n', exit_code: 124 } })
    expect(body).toMatchObject({ stdout: 'before\n', exit_code: 124, status: 'timed_out', outcome: 'deadline' })
    expect(body['request_id']).toMatch(UUID)
  })

  it('hands standard input over as payload bytes, text or base64', async () => {
    await using rig = await makeRig()
    const run = async (input: Record<string, unknown>) => (await rig.post('/api/v1/execute', { command: 'cat', ...input })).body['stdout']
    expect(await run({ payload: [104, 105] })).toBe('hi')
    expect(await run({ stdin: 'text' })).toBe('text')
    expect(await run({ stdin_base64: 'aGVsbG8=' })).toBe('hello')
  })

  it('gives the exact bytes beside the text when the output is not UTF-8', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'cat', payload: [0xff, 0x00, 0x61] })
    expect(body['stdout_base64']).toBe(Buffer.from([0xff, 0x00, 0x61]).toString('base64'))
    expect(body['stderr_base64']).toBeUndefined()
  })

  it('ends the command when the client goes away', async () => {
    await using rig = await makeRig()
    const gone = new AbortController()
    const call = rig.fetch('/api/v1/execute', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ command: 'sleep 60' }), signal: gone.signal })
    await eventually(() => rig.driver.live().processes > 0)
    gone.abort()
    await expect(call).rejects.toThrow()
    await eventually(() => rig.driver.live().processes === 0)
    const { body } = await rig.get('/api/v1/executions')
    await eventually(async () => (await rig.get('/api/v1/executions')).body.executions[0].status === 'cancelled')
    expect(body.executions).toHaveLength(1)
  })

  it('does not take the end of a keep-alive connection for the end of an answered request', async () => {
    await using rig = await makeRig()
    for (let round = 0; round < 12; round++) expect((await rig.post('/api/v1/execute', { command: 'true' })).status).toBe(200)
    const { body } = await rig.get('/api/v1/executions')
    expect(body.executions.every((execution: { status: string }) => execution.status === 'succeeded')).toBe(true)
  })

  it('runs a command once for two calls with one idempotency key, and refuses the key for another body', async () => {
    await using rig = await makeRig()
    const key = { 'idempotency-key': 'k-1' }
    const [first, second] = await Promise.all([rig.post('/api/v1/execute', { command: 'sleep 0.1; echo one' }, key), rig.post('/api/v1/execute', { command: 'sleep 0.1; echo one' }, key)])
    expect(first.body['request_id']).toBe(second.body['request_id'])
    expect(rig.driver.counts.execs).toBe(1)
    const other = await rig.post('/api/v1/execute', { command: 'echo two' }, key)
    expect([other.status, other.body['error'].code]).toEqual([409, 'request/idempotency-conflict'])
  })

  it('answers 429 with retry-after when the queue is full', async () => {
    await using rig = await makeRig({ executor: { concurrencyMax: 1, queueMax: 0, principalConcurrencyMax: 1, principalOutstandingMax: 8 } })
    const running = rig.post('/api/v1/execute', { command: 'sleep 60', timeout_ms: 5000 })
    await eventually(() => rig.driver.live().processes > 0)
    const refused = await rig.post('/api/v1/execute', { command: 'true' })
    expect(refused.status).toBe(429)
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1)
    expect(refused.body['error'].code).toMatch(/^admission\//)
    const { body } = await rig.get('/api/v1/executions?state=running')
    await rig.post(`/api/v1/executions/${body.executions[0].request_id}/cancel`, {})
    expect((await running).status).toBe(499)
  })

  it('echoes a given x-request-id and runs two requests that carry the same', async () => {
    await using rig = await makeRig()
    const headers = { 'x-request-id': 'trace-1' }
    const [first, second] = await Promise.all([rig.post('/api/v1/execute', { command: 'true' }, headers), rig.post('/api/v1/execute', { command: 'true' }, headers)])
    expect(first.headers.get('x-request-id')).toBe('trace-1')
    expect([first.status, second.status]).toEqual([200, 200])
    expect(first.body['request_id']).not.toBe(second.body['request_id'])
  })

  it('answers an image that is not there with its own code', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute', { command: 'true', image: 'nobody/nothing:1' })
    expect([status, body['error'].code]).toEqual([404, 'image/not-found'])
  })

  it('answers an unavailable runtime with 503 and an unknown one with 400', async () => {
    await using rig = await makeRig()
    expect((await rig.post('/api/v1/execute', { command: 'true', runtime: 'firecracker' })).body['error'].code).toMatch(/^runtime\//)
    const unknown = await rig.post('/api/v1/execute', { command: 'true', runtime: 'podman' })
    expect([unknown.status, unknown.body['error'].code]).toEqual([400, 'runtime/unknown'])
  })
})

describe('async: true', () => {
  it('answers 202 at once, and the result is there later', async () => {
    await using rig = await makeRig()
    const accepted = await rig.post('/api/v1/execute', { command: 'echo later', async: true })
    expect(accepted.status).toBe(202)
    const self = accepted.body['links'].self as string
    expect(accepted.headers.get('location')).toBe(self)
    const ended = await eventually(async () => {
      const { body } = await rig.get(self)
      return body.status === 'succeeded' && body
    })
    expect(ended.result).toMatchObject({ stdout: 'later\n', exit_code: 0 })
  })

  it('is cancelled by DELETE, after which a second cancel is a conflict', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'sleep 60', async: true })
    await eventually(() => rig.driver.live().processes > 0)
    const cancelled = await rig.fetch(`/api/v1/executions/${body['request_id']}`, { method: 'DELETE' })
    expect([cancelled.status, ((await cancelled.json()) as { status: string }).status]).toEqual([200, 'cancelled'])
    expect((await rig.post(`/api/v1/executions/${body['request_id']}/cancel`, {})).status).toBe(409)
  })
})
