/** The bodies that the three original clients send, and their decoders, from the recorded facts of the original. */
import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { makeRig } from '../test-support/rig.js'

const md5 = (text: string) => createHash('md5').update(text).digest('hex')
const U64_MAX = Number.MAX_SAFE_INTEGER

type Decoder = (value: unknown, path: string) => void

function fail(path: string, wanted: string, value: unknown): never {
  throw new TypeError(`${path} is not ${wanted}: ${JSON.stringify(value)}`)
}
const text: Decoder = (value, path) => void (typeof value === 'string' || fail(path, 'a String', value))
const u64: Decoder = (value, path) => void ((Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= U64_MAX) || fail(path, 'a u64', value))
const u32: Decoder = (value, path) => void ((Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 4294967295) || fail(path, 'a u32', value))
const i32: Decoder = (value, path) => void ((Number.isInteger(value) && Math.abs(value as number) <= 2147483647) || fail(path, 'an i32', value))
const f64: Decoder = (value, path) => void (typeof value === 'number' || fail(path, 'an f64', value))
const option = (inner: Decoder): Decoder => (value, path) => void (value === null || value === undefined || inner(value, path))
const textMap: Decoder = (value, path) => Object.entries(value as Record<string, unknown>).forEach(([key, item]) => text(item, `${path}.${key}`))
const struct = (fields: Record<string, Decoder>): Decoder => (value, path) => {
  if (typeof value !== 'object' || value === null) fail(path, 'a struct', value)
  for (const [name, decode] of Object.entries(fields)) decode((value as Record<string, unknown>)[name], `${path}.${name}`)
}

const RUST = {
  ExecuteResponse: struct({ request_id: text, exit_code: i32, stdout: text, stderr: text, duration_ms: u64, output: option(text), logs: option(text), error: option(text) }),
  InstanceResponse: struct({ instance_id: text, status: text, created_at: text, endpoints: option(textMap) }),
  PerformanceMetrics: struct({
    total_executions: u64, avg_execution_time_ms: f64, cache_hit_rate: f64, active_containers: u32, active_instances: u32, memory_usage_mb: u64, cpu_usage_percent: f64,
  }),
  HealthStatus: struct({ status: text, timestamp: text, components: option(textMap) }),
}
const GATEWAY = {
  Metrics: struct({ total_requests: u64, cache_hits: u64, cache_hit_rate: f64, docker_executions: u64, vm_executions: u64 }),
  Detailed: struct({
    summary: struct({ total_requests: u64, cache_hits: u64, cache_hit_rate: f64 }),
    performance: struct({ avg_cold_start_ms: option(f64), avg_warm_start_ms: option(f64), p99_latency_ms: option(f64) }),
  }),
  Instance: struct({ id: text, name: option(text), image: text, status: text, created_at: text, cpu_cores: option(u32), memory_mb: option(u32) }),
}

const rustRequest = (fields: Record<string, unknown>): Record<string, unknown> => ({
  command: '', image: null, runtime: null, mode: null, env_vars: null, working_dir: null, timeout_ms: null, memory_mb: null, cpu_cores: null,
  cache_key: null, snapshot_id: null, branch_from: null, payload: null, ...fields,
})

describe('the original TypeScript client', () => {
  it.each([
    ['execute', { command: 'echo hi', image: 'alpine:latest', runtime: 'auto', timeout_ms: 30000, cache_key: md5('echo hi:alpine:latest') }, 'hi\n'],
    ['execute with every option', { command: 'echo $A; pwd', image: 'alpine:latest', runtime: 'auto', timeout_ms: 5000, env_vars: [['A', 'b']], working_dir: '/tmp', cache_key: 'k' }, 'b\n/tmp\n'],
    ['runBash', { command: 'sh -c "echo bash"', image: 'alpine:latest', runtime: 'auto', timeout_ms: 30000, cache_key: 'k' }, 'bash\n'],
  ])('%s', async (_name, body, stdout) => {
    await using rig = await makeRig()
    const answer = await rig.post('/api/v1/execute', body, { authorization: 'Bearer ' })
    expect(answer.status).toBe(200)
    RUST.ExecuteResponse(answer.body, 'response')
    expect(answer.body['stdout'] || answer.body['output']).toBe(stdout)
    expect(answer.body['duration_ms']).toBeGreaterThan(0)
  })

  it('spreads untranslated options into a fork, which is understood and refused with its own code', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute', {
      command: 'true', mode: 'branched', branch_from: 'r', runtime: 'auto', image: 'alpine:latest', envVars: { A: '1' }, workingDir: '/', timeoutMs: 10,
    })
    expect(status).toBe(501)
    expect(body['error'].code).toBe('mode/unsupported')
  })

  it('prewarms, reads metrics and health', async () => {
    await using rig = await makeRig()
    expect((await rig.post('/api/v1/prewarm', { image: 'alpine:latest', count: 1, runtime: 'auto' })).status).toBe(200)
    GATEWAY.Metrics((await rig.get('/api/v1/metrics')).body, 'metrics')
    GATEWAY.Detailed((await rig.get('/api/v1/metrics/detailed')).body, 'detailed')
    expect((await rig.get('/health')).body.status).toBe('healthy')
  })
})

describe('the original Python client', () => {
  it('gets exactly 200 and declared JSON for execute, prewarm, metrics and health', async () => {
    await using rig = await makeRig()
    const execute = await rig.post('/api/v1/execute', { command: "echo 'py'", image: 'python:3.11-slim', runtime: 'auto', timeout_ms: 30000, env_vars: [['K', 'V']], working_dir: '/', cache_key: md5('x') }, { authorization: 'Bearer key' })
    expect([execute.status, execute.headers.get('content-type')]).toEqual([200, 'application/json; charset=utf-8'])
    expect([200, 202]).toContain((await rig.post('/api/v1/prewarm', { image: 'python:3.11-slim', count: 2, runtime: 'auto' })).status)
    for (const path of ['/api/v1/metrics', '/health']) {
      const { status, headers } = await rig.get(path)
      expect([status, headers.get('content-type')]).toEqual([200, 'application/json; charset=utf-8'])
    }
  })

  it('may send env_vars as an object in a fork, and gets an exception for a timeout', async () => {
    await using rig = await makeRig()
    expect((await rig.post('/api/v1/execute', { command: 'true', mode: 'branched', branch_from: 'r', runtime: 'auto', env_vars: { A: '1' } })).body['error'].code).toBe('mode/unsupported')
    expect((await rig.post('/api/v1/execute', { command: 'sleep 10', image: 'alpine:latest', runtime: 'auto', timeout_ms: 100, cache_key: 'k' })).status).toBe(504)
  })

  it('sends a snapshot with a null description and is told that there are none yet', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/snapshots', { container_id: 'c', name: 'n', description: null })
    expect([status, body['error'].code]).toEqual([501, 'runtime/unsupported'])
    expect((await rig.get('/api/v1/snapshots')).body).toEqual([])
    expect((await rig.fetch('/api/v1/snapshots/x', { method: 'DELETE' })).status).toBe(404)
  })
})

describe('the original Rust client', () => {
  it('sends all thirteen fields, unset ones as null, and decodes the answer', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute', rustRequest({ command: 'echo rust' }))
    expect(status).toBe(200)
    RUST.ExecuteResponse(body, 'response')
    expect(body['stdout']).toBe('rust\n')
  })

  it('sends everything of its advanced example', async () => {
    await using rig = await makeRig()
    const { status, body } = await rig.post('/api/v1/execute/advanced', rustRequest({
      command: 'echo $K', image: 'python:3.11-slim', runtime: 'auto', mode: 'ephemeral', env_vars: [['K', 'v']], working_dir: '/tmp', timeout_ms: 5000,
      memory_mb: 512, cpu_cores: 2, cache_key: 'python-version-check', payload: [],
    }))
    expect([status, body['stdout']]).toEqual([200, 'v\n'])
  })

  it('hands code over as payload bytes, which are the standard input', async () => {
    await using rig = await makeRig()
    const { body } = await rig.post('/api/v1/execute', rustRequest({ command: 'sh', image: 'python:3.11-slim', timeout_ms: 30000, payload: [...Buffer.from('echo from-payload')] }))
    expect(body['stdout']).toBe('from-payload\n')
  })

  it('creates, lists, stops and deletes instances', async () => {
    await using rig = await makeRig()
    const made = await rig.post('/api/v1/instances', { name: 'dev', image: 'alpine:latest', cpu_cores: 2, memory_mb: 2048, persistent: true })
    expect(made.status).toBe(200)
    RUST.InstanceResponse(made.body, 'instance')
    GATEWAY.Instance(made.body, 'instance')
    const list = (await rig.get('/api/v1/instances')).body as unknown[]
    list.forEach((instance) => RUST.InstanceResponse(instance, 'instance'))
    expect((await rig.fetch(`/api/v1/instances/${made.body['instance_id']}/stop`, { method: 'POST' })).status).toBe(204)
    expect((await rig.fetch(`/api/v1/instances/${made.body['instance_id']}`, { method: 'DELETE' })).status).toBe(204)
    expect((await rig.get(`/api/v1/instances/${made.body['instance_id']}`)).status).toBe(404)
    expect(rig.executor.metrics().instances.live).toBe(0)
  })

  it('decodes metrics, strictly unsigned, and health with its timestamp', async () => {
    await using rig = await makeRig()
    await rig.post('/api/v1/execute', rustRequest({ command: 'true' }))
    RUST.PerformanceMetrics((await rig.get('/api/v1/metrics')).body, 'metrics')
    const { body } = await rig.get('/health')
    RUST.HealthStatus(body, 'health')
    expect(body).toMatchObject({ status: 'healthy', docker: false, firecracker: false })
    expect(Number.isInteger(body.uptime_ms)).toBe(true)
  })
})
