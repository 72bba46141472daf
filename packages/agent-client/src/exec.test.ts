import { createHash, randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ExecSpec } from '@faas-platform/core'
import type { AgentClient } from './agent-client.js'
import type { ExecOptions } from './exec-request.js'
import { AgentProcess, Collected, until } from './testing/agent-process.js'

const ENV = { PATH: '/usr/bin:/bin' }

let agent: AgentProcess
let client: AgentClient

beforeAll(async () => {
  agent = await AgentProcess.listen()
  client = await agent.client()
})

afterAll(async () => {
  await client.close()
  await agent[Symbol.asyncDispose]()
})

async function run(argv: readonly string[], spec: Partial<ExecSpec> = {}, options: ExecOptions = {}) {
  const io = new Collected()
  const exec = await client.exec({ argv, env: ENV, ...spec }, io, options)
  const exit = await exec.wait()
  return { ...io, stdout: io.stdout, stderr: io.stderr, exit, exec }
}

const sh = (script: string, spec: Partial<ExecSpec> = {}, options: ExecOptions = {}) => run(['sh', '-c', script], spec, options)

describe('exec', () => {
  it('keeps stdout and stderr apart and reports the exit code', async () => {
    const r = await sh('echo out; echo err >&2; exit 3')
    expect([r.stdout, r.stderr]).toEqual(['out\n', 'err\n'])
    expect(r.exit).toMatchObject({ exitCode: 3, signal: null, stdoutBytes: 4, stderrBytes: 4, drainExpired: false })
    expect(r.exec.pid).toBeGreaterThan(0)
  })

  it('reports a signal by name instead of an exit code', async () => {
    const r = await sh('kill -SEGV $$')
    expect(r.exit).toMatchObject({ exitCode: null, signal: 'SIGSEGV' })
  })

  it('measures CPU time, memory and wall time of the command', async () => {
    const r = await sh('i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done')
    expect(r.exit.usage.userCpuMs + r.exit.usage.systemCpuMs).toBeGreaterThan(5)
    expect(r.exit.usage.wallMs).toBeGreaterThanOrEqual(r.exit.usage.userCpuMs * 0.5)
    expect(r.exit.usage.maxRssBytes).toBeGreaterThan(500_000)
  })

  it('passes exactly the given environment and directory', async () => {
    const r = await run(['/usr/bin/env'], { env: { A: '1', B: 'x=y z' }, cwd: '/tmp' })
    expect(r.stdout).toBe('A=1\nB=x=y z\n')
    expect((await sh('pwd', { cwd: '/usr' })).stdout).toBe('/usr\n')
  })

  it('resolves users by name and number with their groups', async () => {
    expect((await run(['id', '-u'], { user: 'nobody' })).stdout).toBe('65534\n')
    expect((await run(['id', '-G'], { user: '12345:23456' })).stdout).toBe('23456\n')
    const daemon = await sh('id -un; id -gn; echo $HOME', { user: 'daemon' }, { defaultHome: true })
    expect(daemon.stdout).toBe('daemon\ndaemon\n/usr/sbin\n')
  })

  it('a command without stdin reads nothing', async () => {
    expect((await run(['cat'])).exit.exitCode).toBe(0)
  })

  it('delivers inline stdin, however large, and then its end', async () => {
    const bytes = randomBytes(3_000_000)
    const r = await run(['sha256sum'], { stdin: bytes })
    expect(r.stdout.slice(0, 64)).toBe(createHash('sha256').update(bytes).digest('hex'))
  })

  it('streams stdin with backpressure', async () => {
    const io = new Collected()
    const exec = await client.exec({ argv: ['sh', '-c', 'kill -STOP $$; exec sha256sum'], env: ENV, stdin: 'pipe' }, io)
    const state = (): string => readFileSync(`/proc/${exec.pid}/stat`, 'utf8').split(') ')[1]?.[0] ?? ''
    await until('the command has stopped itself', () => state() === 'T')
    const bytes = randomBytes(4_000_000)
    let written = false
    const writing = exec.writeStdin(bytes).then(() => {
      written = true
      return exec.closeStdin()
    })
    for (let i = 0; i < 5; i++) await client.ping()
    expect(written, 'nobody reads, so the writer must wait').toBe(false)
    await exec.kill('SIGCONT')
    await writing
    await exec.wait()
    expect(io.stdout.slice(0, 64)).toBe(createHash('sha256').update(bytes).digest('hex'))
  })

  it('ends a writer whose command does not read', async () => {
    const exec = await client.exec({ argv: ['true'], env: ENV, stdin: 'pipe' }, new Collected())
    await exec.wait()
    await expect(exec.writeStdin(randomBytes(10))).rejects.toMatchObject({ code: 'execution/not-running' })
  })

  it('takes ten thousand environment entries and arguments up to the kernel limit', async () => {
    const env = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`NAME_${i}`, `value ${i}`]))
    const r = await run(['/usr/bin/env'], { env })
    expect(r.stdout.split('\n').length).toBe(10_001)
    const args = Array.from({ length: 15 }, () => 'a'.repeat(100_000))
    const echoed = await run(['sh', '-c', 'echo $#', 'sh', ...args])
    expect(echoed.stdout).toBe('15\n')
  })

  it('signals the whole process group', async () => {
    const io = new Collected()
    const exec = await client.exec({ argv: ['sh', '-c', 'sleep 600 & echo $!; wait'], env: ENV }, io)
    await until('the child was announced', () => io.stdout.endsWith('\n'))
    await exec.kill('SIGTERM')
    expect(await exec.wait()).toMatchObject({ signal: 'SIGTERM', drainExpired: false })
    await until('the grandchild is gone', async () => (await sh(`kill -0 ${io.stdout.trim()}`)).exit.exitCode !== 0)
  })

  it('many commands run at once without mixing their output', async () => {
    const all = await Promise.all(Array.from({ length: 50 }, (_, i) => sh(`echo ${i}; echo e${i} >&2; exit ${i}`)))
    expect(all.map((r) => [r.stdout, r.stderr, r.exit.exitCode])).toEqual(
      Array.from({ length: 50 }, (_, i) => [`${i}\n`, `e${i}\n`, i]),
    )
  })
})
