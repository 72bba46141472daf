import { setTimeout as delay } from 'node:timers/promises'
import { eventually } from '@faas-platform/testkit'
import { describe, expect, it } from 'vitest'
import type { Json } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'

describe('instances', () => {
  it('keep their files from one command to the next', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', { name: 'dev', env_vars: { WHO: 'me' }, labels: { a: 'b' } })
    expect(body).toMatchObject({ status: 'running', name: 'dev', memory_mb: 512, labels: { a: 'b' }, endpoints: {} })
    const exec = (command: string) => rig.post(`/api/v1/instances/${body['id']}/exec`, { command })
    await exec('echo $WHO > /tmp/who')
    const answer = await exec('cat /tmp/who')
    expect(answer.body).toMatchObject({ stdout: 'me\n', start: 'reused', instance_id: body['id'], container_id: body['id'] })
    expect((await rig.post(`/api/v1/instances/${body['id']}/exec`, { command: 'exit 9' })).body['exit_code']).toBe(9)
  })

  it('are found by the id of the persistent execution that made them', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'echo kept > /tmp/f', mode: 'persistent' })
    expect(body['instance_id']).toBeTruthy()
    expect((await rig.get(`/api/v1/instances/${body['request_id']}`)).body.id).toBe(body['instance_id'])
    expect((await rig.post('/api/v1/execute', { command: 'cat /tmp/f', mode: 'persistent', instance_id: body['instance_id'] })).body['stdout']).toBe('kept\n')
  })

  it('that are stopped refuse commands with a conflict', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', {})
    await rig.fetch(`/api/v1/instances/${body['id']}/stop`, { method: 'POST' })
    const refused = await rig.post(`/api/v1/instances/${body['id']}/exec`, { command: 'true' })
    expect([refused.status, refused.body['error'].code]).toEqual([409, 'instance/wrong-state'])
  })

  it('stream the output of a command', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/instances', {})
    const response = await rig.fetch(`/api/v1/instances/${body['id']}/exec`, { method: 'POST', headers: { 'content-type': 'application/json', accept: 'text/event-stream' }, body: JSON.stringify({ command: 'echo streamed' }) })
    expect(await response.text()).toMatch(/event: stdout\ndata: .*streamed[\s\S]*event: end/)
  })

  it.each(['pause', 'resume'])('answer %s with a typed 501 for now', async (action) => {
    await using rig = await makeRig()
    expect((await rig.post(`/api/v1/instances/x/${action}`, {})).status).toBe(501)
  })
})

describe('executions', () => {
  it('are listed newest first, page by page, by state', async () => {
    await using rig = await makeRig()
    for (const code of [0, 1, 0, 1, 0]) {
      await rig.post('/api/v1/execute', { command: `exit ${code}`, labels: { code: String(code) } })
      await delay(2) // so that no two carry the same millisecond: the order under test is that of creation
    }
    const all: Json[] = []
    for (let cursor: string | null = ''; cursor !== null; ) {
      const { body }: { body: Json } = await rig.get(`/api/v1/executions?limit=2${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`)
      all.push(...body.executions)
      cursor = body.next_cursor
    }
    expect(all.map((execution) => execution.exit_code)).toEqual([0, 1, 0, 1, 0])
    expect(all[0]).toMatchObject({ command: ['/bin/sh', '-c', 'exit 0'], labels: { code: '0' }, kind: 'sync', mode: 'ephemeral' })
    expect((await rig.get('/api/v1/executions?state=failed')).body.executions).toHaveLength(2)
    expect((await rig.get('/api/v1/executions?state=failed,succeeded')).body.executions).toHaveLength(5)
    for (const query of ['state=nope', 'limit=0', 'limit=x', 'limit=1001']) expect((await rig.get(`/api/v1/executions?${query}`)).status, query).toBe(400)
  })

  it('never show the environment or the input they were given', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', { command: 'true', env_vars: { T: 'hunter-env' }, stdin: 'hunter-stdin' })
    expect(JSON.stringify((await rig.get(`/api/v1/executions/${body['request_id']}`)).body)).not.toContain('hunter')
  })
})

describe('the pool', () => {
  it('is warmed by prewarm, shows it, and serves warm', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/prewarm', { image: 'alpine:latest', count: 2 })
    expect(status).toBe(200)
    expect(body).toMatchObject({ image: 'alpine:latest', wanted: 2, ready: 2, limited_by: null })
    expect((await rig.get('/api/v1/pools')).body).toHaveLength(1)
    expect((await rig.get('/api/v1/pools/detailed')).body[0]).toMatchObject({ ready: 2, floor: 2, memory_mb: 512, network: 'none' })
    expect((await rig.post('/api/v1/execute', { command: 'true', image: 'alpine:latest' })).body['start']).toBe('warm')
  })
})

describe('metrics', () => {
  it('count what happened', async () => {
    await using rig = await makeRig()
    await rig.post('/api/v1/execute', { command: 'true' })
    await rig.post('/api/v1/execute', { command: 'sleep 9', timeout_ms: 50 })
    const { body } = await rig.get('/api/v1/metrics')
    expect(body).toMatchObject({ total_requests: 2, total_executions: 2, request_count: 2, error_rate: 0.5, executions_by_outcome: { exited: 1, deadline: 1 } })
    expect(body.avg_execution_time_ms).toBeGreaterThan(0)
    const detailed = (await rig.get('/api/v1/metrics/detailed')).body
    expect(detailed.performance.avg_cold_start_ms).toBeGreaterThan(0)
    expect(detailed.runtimes.memory).toMatchObject({ executions: 2, available: true })
    expect(Object.keys(detailed.cold_start_phases.memory)).toContain('total')
  })

  it.each(['/metrics', '/api/v1/metrics/prometheus'])('are Prometheus text at %s, cold start phases included', async (path) => {
    await using rig = await makeRig()
    await rig.post('/api/v1/execute', { command: 'true' })
    const response = await rig.fetch(path)
    const text = await response.text()
    expect(response.headers.get('content-type')).toContain('text/plain')
    expect(text).toMatch(/^faas_executions_total\{.*status="success".*\} 1$/m)
    expect(text).toMatch(/^faas_cold_start_seconds_bucket\{le="\+Inf",runtime="memory",phase="total"\} [1-9]\d*$/m)
    expect(text).toMatch(/^faas_execution_duration_seconds_count\{runtime="memory"\} 1$/m)
    expect(text).toMatch(/^faas_http_responses_total\{method="POST",route="\/api\/v1\/execute",status="200"\} 1$/m)
    expect(text).toContain('# TYPE faas_cold_start_seconds histogram')
    expect(text).toMatch(/^faas_docker_daemon_available 0$/m)
    // Every sample line follows the text format.
    for (const line of text.split('\n')) if (line !== '' && !line.startsWith('#')) expect(line).toMatch(/^[a-zA-Z_:][\w:]*(\{[^{}]*\})? (-?[\d.e+-]+|[Nn]a[Nn]|[+-]Inf)$/)
  })
})

describe('health', () => {
  it('tells when no runtime is usable', async () => {
    await using rig = await makeRig()
    expect((await rig.fetch('/health', { method: 'HEAD' })).status).toBe(200)
    rig.driver.faults.probe = { usable: false, reason: 'The test says so.' }
    await rig.executor.probeRuntimes(new AbortController().signal)
    expect((await rig.get('/health')).body).toMatchObject({ status: 'degraded', components: { memory: 'unavailable' }, issues: ['memory: The test says so.'] })
    expect((await rig.get('/api/v1/runtimes')).body[0]).toMatchObject({ name: 'memory', usable: false, reason: 'The test says so.' })
  })
})

describe('draining', () => {
  it('refuses new work with 503, lets reading and running work go on', async () => {
    await using rig = await makeRig()
    const running = rig.post('/api/v1/execute', { command: 'sleep 0.3; echo done' })
    await eventually(() => rig.driver.live().processes > 0)
    rig.gateway.startDraining()
    const refused = await rig.post('/api/v1/execute', { command: 'true' })
    expect([refused.status, refused.body['error'].code, refused.headers.has('retry-after')]).toEqual([503, 'admission/draining', true])
    expect((await rig.get('/api/v1/executions')).status).toBe(200)
    const health = await rig.get('/health')
    expect([health.status, health.body.status]).toEqual([503, 'draining'])
    expect((await running).body['stdout']).toBe('done\n')
  })

  it('lets go of what the caller wants ended', async () => {
    await using rig = await makeRig()
    const { body: instance } = await rig.post('/api/v1/instances', {})
    const { body: execution } = await rig.post('/api/v1/execute', { command: 'sleep 60', async: true })
    await eventually(() => rig.driver.live().processes > 1)
    rig.gateway.startDraining()
    expect((await rig.post(`/api/v1/executions/${execution['request_id']}/cancel`, {})).body['status']).toBe('cancelled')
    expect((await rig.fetch(`/api/v1/instances/${instance['id']}/stop`, { method: 'POST' })).status).toBe(204)
    expect((await rig.fetch(`/api/v1/instances/${instance['id']}`, { method: 'DELETE' })).status).toBe(204)
  })
})

describe('images', () => {
  it('are listed, pulled with progress, and removed', async () => {
    await using rig = await makeRig()
    const list = (await rig.get('/api/v1/images')).body
    expect(list.map((image: Json) => image.store)).toContain('memory')
    const pulled = await rig.post('/api/v1/images/pull', { reference: 'alpine:latest', pull: 'missing' })
    expect(pulled.body['digest']).toMatch(/^sha256:/)
    const stream = await rig.fetch('/api/v1/images/pull', { method: 'POST', headers: { 'content-type': 'application/json', accept: 'text/event-stream' }, body: JSON.stringify({ reference: 'alpine:latest' }) })
    expect(await stream.text()).toMatch(/event: progress[\s\S]*event: end/)
    expect((await rig.post('/api/v1/images/pull', { reference: 'nobody/nothing:1' })).status).toBe(404)
    expect((await rig.post('/api/v1/images/pull', { reference: 'alpine:latest', store: 'nope' })).status).toBe(400)
    expect((await rig.fetch('/api/v1/images?reference=node:20-slim', { method: 'DELETE' })).status).toBe(204)
    expect((await rig.post('/api/v1/execute', { command: 'true', image: 'node:20-slim' })).status).toBe(404)
  })
})
