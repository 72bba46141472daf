import type { SandboxLimits } from '@faas-platform/core'
import { GIB, isFaasError, MIB } from '@faas-platform/core'
import { describe, expect, it } from 'vitest'
import { ExecuteBody } from './execute-body.js'
import type { WirePolicy } from './to-domain.js'
import { toExecuteRequest } from './to-domain.js'
import type { RequestIssue } from './validate.js'
import { bodyCheck } from './validate.js'

const limits: SandboxLimits = { memoryBytes: 512 * MIB, cpuCores: 1, pidsMax: 256, writableBytesMax: GIB }
const policy: WirePolicy = {
  image: 'faas/base:latest', runtime: 'auto', timeoutMs: 30_000, timeoutMsMax: 3_600_000, limits,
  limitsMax: { memoryBytes: 4 * GIB, cpuCores: 4, pidsMax: 4096, writableBytesMax: 8 * GIB },
  network: 'none', outputBytes: MIB, outputBytesMax: 16 * MIB, logBytesMax: 64 * MIB,
}
const check = bodyCheck<ExecuteBody>(ExecuteBody)
const convert = (body: unknown) => toExecuteRequest(check.check(body), policy)

function issuesOf(body: unknown): readonly RequestIssue[] {
  try {
    convert(body)
  } catch (thrown) {
    if (isFaasError(thrown)) return thrown.details?.['issues'] as RequestIssue[]
    throw thrown
  }
  throw new Error('The body was expected to be refused.')
}

describe('an execute body', () => {
  it('with only a command gets every default', () => {
    expect(convert({ command: 'echo hi' })).toEqual({
      argv: ['/bin/sh', '-c', 'echo hi'], image: 'faas/base:latest', runtime: 'auto', isolationFloor: 'none', mode: 'ephemeral', timeoutMs: 30_000,
      limits, network: { mode: 'none', allowCidrs: [] }, env: {}, outputBytesMax: MIB, logBytesMax: 64 * MIB, rerunnable: true, labels: {},
    })
  })

  it('may have null for every optional field', () => {
    const nulls = Object.fromEntries(Object.keys(ExecuteBody.properties).filter((key) => key !== 'command').map((key) => [key, null]))
    expect(convert({ command: 'true', ...nulls })).toEqual(convert({ command: 'true' }))
  })

  it('takes a list as argv', () => {
    expect(convert({ command: ['/bin/echo', '$x'] }).argv).toEqual(['/bin/echo', '$x'])
  })

  it('takes env_vars as pairs, where the last of a name counts, or as an object', () => {
    expect(convert({ command: 'true', env_vars: [['A', '1'], ['B', '2'], ['A', '3']] }).env).toEqual({ A: '3', B: '2' })
    expect(convert({ command: 'true', env_vars: { A: '1' } }).env).toEqual({ A: '1' })
  })

  it('converts MiB to bytes exactly, from either spelling of the limits', () => {
    expect(convert({ command: 'true', memory_mb: 64, cpu_cores: 0.5, limits: { pids: 32, disk_mb: 10 } }).limits).toEqual({
      memoryBytes: 67_108_864, cpuCores: 0.5, pidsMax: 32, writableBytesMax: 10_485_760,
    })
    expect(convert({ command: 'true', limits: { memory_mb: 64 } }).limits.memoryBytes).toBe(67_108_864)
    expect(issuesOf({ command: 'true', memory_mb: 64, limits: { memory_mb: 65 } })).toEqual([{ path: '/limits/memory_mb', message: 'must not differ from /memory_mb' }])
  })

  it('ignores unknown keys and understands camelCase spellings, of which the snake_case one wins', () => {
    const request = convert({ command: 'true', envVars: { A: '1' }, timeoutMs: 5, working_dir: '/a', workingDir: '/b', surprise: {} })
    expect([request.env, request.timeoutMs, request.cwd]).toEqual([{ A: '1' }, 5, '/a'])
  })

  it('without a mode takes that of the source it names, and with another mode is refused', () => {
    expect(convert({ command: 'true', instance_id: 'i' })).toMatchObject({ mode: 'persistent', instanceId: 'i' })
    expect(convert({ command: 'true', branch_from: 'b', mode: null }).mode).toBe('branched')
    expect(convert({ command: 'true', snapshot_id: 's' }).mode).toBe('checkpointed')
    expect(issuesOf({ command: 'true', mode: 'ephemeral', instance_id: 'i' })).toEqual([{ path: '/instance_id', message: 'needs mode "persistent"' }])
    expect(issuesOf({ command: 'true', instance_id: 'i', branch_from: 'b' })).toEqual([{ path: '/branch_from', message: 'needs mode "branched"' }])
  })

  it('may not ask for so little CPU that an engine would take it for no limit', () => {
    expect(convert({ command: 'true', cpu_cores: 0.01 }).limits.cpuCores).toBe(0.01)
    for (const limits of [{ cpu_cores: 0.009 }, { cpu_cores: 5e-324 }, { limits: { cpu_cores: 0.009 } }]) {
      expect(issuesOf({ command: 'true', ...limits })[0]?.message).toMatch(/at least 0.01/)
    }
  })

  it('is told how many entries a map may have', () => {
    const labels = Object.fromEntries(Array.from({ length: 65 }, (_, index) => [index, '']))
    expect(issuesOf({ command: 'true', labels })).toEqual([{ path: '/labels', message: 'must be object (at most 64 entries) or null' }])
  })

  it('nested deeper than the stack reaches is refused as any other', () => {
    const deep = JSON.parse(`{"command":"true","labels":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}}`) as unknown
    expect(issuesOf(deep)[0]?.path).toMatch(/^\/labels/)
  })

  it('takes standard input as payload, text or base64, once', () => {
    expect([...(convert({ command: 'cat', payload: [0, 255] }).stdin ?? [])]).toEqual([0, 255])
    expect(Buffer.from(convert({ command: 'cat', stdin: 'é' }).stdin ?? []).toString()).toBe('é')
    expect(Buffer.from(convert({ command: 'cat', stdin_base64: '/w==' }).stdin ?? [])).toEqual(Buffer.from([255]))
    expect(issuesOf({ command: 'cat', stdin: 'a', payload: [1] })[0]?.path).toBe('/stdin')
    expect(issuesOf({ command: 'cat', stdin_base64: '/w=' })[0]?.path).toBe('/stdin_base64')
  })

  it('refuses a misspelt mode and says which there are', () => {
    expect(issuesOf({ command: 'true', mode: 'ephemral' })).toEqual([
      { path: '/mode', message: 'must be one of "ephemeral", "cached", "checkpointed", "branched", "persistent" or null' },
    ])
  })

  it('reports every problem at once, each where it is', () => {
    const issues = issuesOf({ command: ['a', 1], env_vars: { A: 1 }, timeout_ms: -1, memory_mb: 1.5, payload: [256], network: { mode: 'all' }, runtime: 3 })
    expect(issues.map((issue) => issue.path).sort()).toEqual(['/command/1', '/env_vars/A', '/memory_mb', '/network/mode', '/payload/0', '/runtime', '/timeout_ms'])
    expect(issuesOf({})).toEqual([{ path: '/command', message: 'is missing' }])
    expect(issuesOf(undefined)[0]?.path).toBe('')
  })

  it('reports problems that a schema can not see, together', () => {
    const issues = issuesOf({ command: 'a\0b', env_vars: [['', 'x'], ['A=B', 'y'], ['C', '\0']], working_dir: 'relative', network: { mode: 'egress', allow: ['10.0.0.0/33', 'host'] }, timeout_ms: 9e9 })
    expect(issues.map((issue) => issue.path)).toEqual(['/command', '/working_dir', '/env_vars', '/env_vars', '/env_vars', '/timeout_ms', '/network/allow/0', '/network/allow/1'])
    expect(issues.find((issue) => issue.path === '/timeout_ms')?.message).toBe('must be at most 3600000 on this gateway')
  })

  it('never repeats the value of an environment variable in an error', () => {
    expect(JSON.stringify(issuesOf({ command: 'true', env_vars: { TOKEN: 'hunter22\0' } }))).not.toContain('hunter22')
    expect(JSON.stringify(issuesOf({ command: 'true', env_vars: { TOKEN: ['hunter22'] } }))).not.toContain('hunter22')
  })

  it('gives a runtime that does not exist its own code', () => {
    try {
      convert({ command: 'true', runtime: 'memory' })
      expect.unreachable()
    } catch (thrown) {
      expect(isFaasError(thrown, 'runtime/unknown')).toBe(true)
    }
  })

  it('costs one error when it is large and hostile', () => {
    expect(issuesOf({ command: 'true', payload: new Array(100_000).fill('x') })).toHaveLength(1)
  })
})
