/** The client SDK against a real gateway: what the commands use is in program.test.ts, the rest is here. */
import { FaaSApiError, FaaSAuthError, FaaSClient, FaaSTimeoutError, FunctionBuilder } from '@faas-platform/sdk'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeRig, type Rig } from './testing/rig.js'

let rig: Rig
let client: FaaSClient
beforeAll(async () => {
  rig = await makeRig()
  client = new FaaSClient(rig.url)
})
afterAll(() => rig[Symbol.asyncDispose]())

describe('the original client', () => {
  it('executes, counts and tells its listeners', async () => {
    const heard: boolean[] = []
    client.once('execution', ({ cacheHit }) => heard.push(cacheHit))
    const { envVars, memoryMb, cpuCores, timeoutMs } = new FunctionBuilder('f').withEnv('A', '1').withMemory(64).build()
    const result = await client.execute({ command: 'echo $A; pwd; exit 3', envVars, memoryMb, cpuCores, timeoutMs, workingDir: '/tmp' })
    expect(result).toMatchObject({ output: '1\n/tmp\n', exitCode: 3, cacheHit: false, runtimeUsed: 'memory', error: 'Process exited with code 3' })
    expect(result.durationMs).toBeGreaterThanOrEqual(1)
    expect(heard).toEqual([false])
    expect(client.getClientMetrics()).toMatchObject({ totalRequests: 1, errors: 0 })
  })

  it('streams lines, and reads health and figures', async () => {
    const { requestId } = await client.submit({ command: 'echo one; echo two' })
    const lines: string[] = []
    for await (const line of client.streamLogs(requestId)) lines.push(line)
    expect(lines).toEqual(['one', 'two'])
    expect(await client.healthCheck()).toMatchObject({ status: 'healthy', docker: false })
    expect((await client.getMetrics()).total_requests).toBeGreaterThanOrEqual(1)
    await client.prewarm('alpine:latest', 1)
    expect(await client.pools()).toHaveLength(1)
    await client.prewarm('alpine:latest', 0)
  })

  it('keeps the output of a command that ran out of time', async () => {
    const failure: unknown = await client.execute({ command: 'echo before; sleep 600', timeoutMs: 300 }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(FaaSTimeoutError)
    expect(failure).toMatchObject({ code: 'execution/deadline', status: 504, stdout: 'before\n' })
  })

  it('is told plainly what this gateway can not do yet', async () => {
    for (const call of [client.forkExecution('x', 'true'), client.createSnapshot('x', 'name'), client.execute({ command: 'true', mode: 'cached' })]) {
      await expect(call).rejects.toMatchObject({ status: 501 })
    }
  })
})

describe('beyond the original', () => {
  it('a repeated key joins the first run', async () => {
    const call = { command: 'echo $RANDOM$$; date', idempotencyKey: 'once' }
    const [first, second] = [await client.execute(call), await client.execute(call)]
    expect(second.requestId).toBe(first.requestId)
  })

  it('leaving a stream ends the command', async () => {
    for await (const event of client.executeStream({ command: 'echo started; sleep 600' })) if (event.type === 'stdout') break
    await expect.poll(async () => (await client.executions.list({ state: 'active' })).executions.length).toBe(0)
  })

  it('bytes arrive as they are', async () => {
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index)
    let got = new Uint8Array()
    for await (const event of client.executeStream({ command: ['cat'], stdin: bytes })) if (event.type === 'stdout') got = Uint8Array.from([...got, ...event.bytes])
    expect(got).toEqual(bytes)
  })

  it('instances run commands as streams, too', async () => {
    const box = await client.instances.create({ image: 'alpine:latest', labels: { a: 'b' }, ttlMs: 60_000 })
    expect(await client.instances.get(box.id)).toMatchObject({ status: 'running', labels: { a: 'b' } })
    const types: string[] = []
    for await (const event of client.instances.execStream(box.id, ['echo', 'hi'])) types.push(event.type)
    expect(types).toContain('stdout')
    expect(types.at(-1)).toBe('end')
    await client.instances.delete(box.id)
    await expect(client.instances.get(box.id)).rejects.toBeInstanceOf(FaaSApiError)
  })

  it('lists runtimes and pools, and makes keys that hold', async () => {
    expect((await client.runtimes()).map(({ name, usable }) => [name, usable])).toEqual([['memory', true]])
    await using guarded = await makeRig({ env: { FAAS_REQUIRE_KEYS: 'true' } })
    await expect(new FaaSClient(guarded.url).execute({ command: 'true' })).rejects.toBeInstanceOf(FaaSAuthError)
    const admin = new FaaSClient({ baseUrl: guarded.url, apiKey: (JSON.parse(await guarded.say('keys', 'create', '--scopes', 'admin', '--json')) as { key: string }).key })
    const made = await admin.keys.create({ name: 'reader', scopes: ['read'], expiresInMs: 60_000 })
    const reader = new FaaSClient({ baseUrl: guarded.url, apiKey: made.key })
    expect((await reader.executions.list()).executions).toEqual([])
    await expect(reader.execute({ command: 'true' })).rejects.toMatchObject({ status: 403, code: 'auth/missing-scope' })
    expect((await admin.keys.list()).map(({ name }) => name)).toContain('reader')
    await admin.keys.revoke(made.id)
    await expect(reader.executions.list()).rejects.toMatchObject({ status: 401 })
  })
})
