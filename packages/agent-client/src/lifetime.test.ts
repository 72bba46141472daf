import { existsSync, readFileSync, rmSync } from 'node:fs'
import { afterEach, describe, expect, it } from 'vitest'
import { FaasError } from '@faas-platform/core'
import { AgentClient } from './agent-client.js'
import { AgentProcess, Collected, until } from './testing/agent-process.js'

const ENV = { PATH: '/usr/bin:/bin' }
const sh = (script: string) => ({ argv: ['sh', '-c', script], env: ENV })

const agents: AgentProcess[] = []
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent[Symbol.asyncDispose]()
})
async function start(): Promise<AgentProcess> {
  const agent = await AgentProcess.listen()
  agents.push(agent)
  return agent
}

describe('connections', () => {
  it('a command that is not kept dies with its connection', async () => {
    const agent = await start()
    const client = await agent.client()
    const exec = await client.exec(sh('sleep 600'), new Collected())
    await client.close()
    await expect(exec.wait()).rejects.toMatchObject({ code: 'agent/disconnected', kind: 'unavailable' })
    const next = await agent.client()
    await until('the command is gone', async () => (await next.listExecs()).length === 0)
  })

  it('a kept command runs on and its output is replayed from a cursor', async () => {
    const agent = await start()
    const first = await agent.client()
    const io = new Collected()
    const exec = await first.exec({ ...sh('echo one; read go; echo two; echo err >&2; exit 5'), stdin: 'pipe', keepOnDisconnect: true }, io)
    await until('the first line came', () => io.stdout === 'one\n')
    const { execId, cursors } = exec
    expect(cursors).toEqual({ stdout: 4, stderr: 0 })
    await first.close()

    const second = await agent.client()
    expect(await second.listExecs()).toMatchObject([{ execId, ended: false, attached: false, name: 'sh', stdout: { base: 0, head: 4 } }])
    const again = new Collected()
    const attached = await second.attach(execId, again, { stdoutCursor: cursors.stdout })
    await attached.writeStdin(Buffer.from('go\n'))
    expect(await attached.wait()).toMatchObject({ exitCode: 5, stdoutBytes: 8, stderrBytes: 4 })
    expect([again.stdout, again.stderr]).toEqual(['two\n', 'err\n'])

    const third = new Collected()
    expect(await (await second.attach(execId, third)).wait()).toMatchObject({ exitCode: 5 })
    expect(third.stdout).toBe('one\ntwo\n')
    await second.forget(execId)
    await expect(second.attach(execId, third)).rejects.toMatchObject({ code: 'execution/not-running' })
  })

  it('keeps the newest output of a detached command within its ring', async () => {
    const agent = await start()
    const first = await agent.client()
    const exec = await first.exec({ ...sh('read go; seq 1 100000'), stdin: 'pipe', keepOnDisconnect: true }, new Collected(), { ringBytes: 1000 })
    await exec.writeStdin(Buffer.from('go\n'))
    await exec.detach()
    await expect(exec.wait()).rejects.toMatchObject({ code: 'agent/disconnected' })
    await until('it has ended', async () => (await first.listExecs())[0]?.ended === true)
    const io = new Collected()
    const attached = await first.attach(exec.execId, io)
    await attached.wait()
    expect(io.stdout).toMatch(/99998\n99999\n100000\n$/)
    expect(io.stdout.length).toBe(1000)
    expect(attached.cursors.stdout).toBe(588_895)
  })

  it('slows a detached command that must keep all its output, and loses nothing', async () => {
    const agent = await start()
    const first = await agent.client()
    const exec = await first.exec({ ...sh('seq 1 100000'), keepOnDisconnect: true }, new Collected(), { ringBytes: 4096, keep: 'all', windowBytes: 4096 })
    await exec.detach()
    const io = new Collected()
    const attached = await first.attach(exec.execId, io, { windowBytes: 4096 })
    expect(await attached.wait()).toMatchObject({ exitCode: 0, stdoutBytes: 588_895 })
    expect(io.stdout.length).toBeGreaterThan(580_000)
    expect(io.stdout.endsWith('\n100000\n')).toBe(true)
  })

  it('a second attachment takes the first one over', async () => {
    const agent = await start()
    const [a, b] = [await agent.client(), await agent.client()]
    const exec = await a.exec({ ...sh('read x; echo $x'), stdin: 'pipe', keepOnDisconnect: true }, new Collected())
    const io = new Collected()
    const taken = await b.attach(exec.execId, io)
    await expect(exec.wait()).rejects.toMatchObject({ code: 'execution/cancelled' })
    await taken.writeStdin(Buffer.from('mine\n'))
    await taken.wait()
    expect(io.stdout).toBe('mine\n')
  })

  it('serves eight connections at once and works on after a ninth', async () => {
    const agent = await start()
    const clients = await Promise.all(Array.from({ length: 8 }, () => agent.client()))
    await expect(AgentClient.connectUnix(agent.socketPath, { timeoutMs: 2_000 })).rejects.toMatchObject({ kind: 'unavailable' })
    await clients[0]?.close()
    await until('a place is free', () => agent.client().then(() => true, () => false))
  })

  it('makes its socket again when the guest deleted it', async () => {
    const agent = await start()
    const client = await agent.client()
    rmSync(agent.socketPath)
    await client.ping()
    await client.close()
    await until('it listens again', () => agent.client().then(() => true, () => false))
  })

  it('reports a lost agent to everything pending', async () => {
    const agent = await start()
    const client = await agent.client()
    const exec = await client.exec(sh('sleep 600'), new Collected())
    agent.child.kill('SIGKILL')
    await expect(exec.wait()).rejects.toMatchObject({ code: 'agent/disconnected' })
    expect(await client.closed).toBeInstanceOf(FaasError)
    await expect(client.ping()).rejects.toMatchObject({ code: 'agent/disconnected' })
    process.kill(-exec.pid, 'SIGKILL') // nobody else is left to do it
  })

  it('shutdown ends the commands and the agent', async () => {
    const agent = await start()
    const client = await agent.client()
    const exec = await client.exec(sh('sleep 600'), new Collected())
    await client.shutdown()
    await expect(exec.wait()).rejects.toMatchObject({ code: 'agent/disconnected' })
    await until('the agent has ended', () => !agent.alive)
    expect(agent.child.exitCode).toBe(0)
    // Killed; who reaps it now is up to this host's init.
    const state = (): string => (existsSync(`/proc/${exec.pid}/stat`) ? readFileSync(`/proc/${exec.pid}/stat`, 'utf8') : 'gone')
    await until('the command is dead', () => /gone|\) [ZX] /.test(state()))
  })

  it('does not end by the signals a guest could send', async () => {
    const agent = await start()
    const client = await agent.client()
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGPIPE'] as const) agent.child.kill(signal)
    await client.ping()
    expect(agent.alive).toBe(true)
  })
})

describe('stdio', () => {
  it('speaks over its standard streams and ends with them', async () => {
    const agent = AgentProcess.stdio()
    agents.push(agent)
    const { stdin, stdout } = agent.child
    if (stdin === null || stdout === null) throw new Error('no pipes')
    const client = await AgentClient.connect({ readable: stdout, writable: stdin })
    const io = new Collected()
    const exec = await client.exec(sh('echo hello; head -c 3000000 /dev/zero >&2'), io)
    expect(await exec.wait()).toMatchObject({ exitCode: 0 })
    expect([io.stdout, io.stderr.length]).toEqual(['hello\n', 3_000_000])
    await client.close()
    await until('the agent has ended', () => !agent.alive)
  })

  it('after a quiesce a new host can greet it on the same pipes and go on with the commands', async () => {
    const agent = AgentProcess.stdio()
    agents.push(agent)
    const { stdin, stdout } = agent.child
    if (stdin === null || stdout === null) throw new Error('no pipes')
    const first = await AgentClient.connect({ readable: stdout, writable: stdin })
    const io = new Collected()
    const exec = await first.exec({ ...sh('echo before; read x; echo after'), stdin: 'pipe' }, io)
    await until('it runs', () => io.stdout === 'before\n')
    await first.quiesce({ sync: 'root' })
    // What a restore does: the old host is gone without a word, a new one holds the same pipes.
    const { PassThrough } = await import('node:stream')
    stdout.removeAllListeners('data').removeAllListeners('end').removeAllListeners('close')
    const readable = stdout.pipe(new PassThrough())
    const writable = new PassThrough()
    writable.pipe(stdin)
    const second = await AgentClient.connect({ readable, writable })
    const again = new Collected()
    const attached = await second.attach(exec.execId, again, { stdoutCursor: exec.cursors.stdout })
    await attached.writeStdin(Buffer.from('x\n'))
    expect(await attached.wait()).toMatchObject({ exitCode: 0 })
    expect(again.stdout).toBe('after\n')
  })
})

describe('checkpoints', () => {
  it('holds output between quiesce and resume', async () => {
    const agent = await start()
    const client = await agent.client()
    const io = new Collected()
    const exec = await client.exec({ ...sh('while read x; do echo $x; done'), stdin: 'pipe' }, io)
    await exec.writeStdin(Buffer.from('1\n'))
    await until('it answers', () => io.stdout === '1\n')
    await client.quiesce()
    await exec.writeStdin(Buffer.from('2\n'))
    await client.ping()
    await client.ping()
    expect(io.stdout).toBe('1\n')
    await expect(client.exec(sh('true'), io)).rejects.toMatchObject({ code: 'request/invalid' })
    await client.resume()
    await until('it answers again', () => io.stdout === '1\n2\n')
    await exec.closeStdin()
    expect(await exec.wait()).toMatchObject({ exitCode: 0 })
  })

  it('a command survives a connection that closes while quiesced', async () => {
    const agent = await start()
    const client = await agent.client()
    const io = new Collected()
    const exec = await client.exec({ ...sh('echo 1; read x; echo 2'), stdin: 'pipe' }, io)
    await until('it runs', () => io.stdout === '1\n')
    await client.quiesce()
    await client.close()
    const next = await agent.client()
    const again = new Collected()
    const attached = await next.attach(exec.execId, again, { stdoutCursor: exec.cursors.stdout })
    await attached.writeStdin(Buffer.from('\n'))
    await attached.wait()
    expect(again.stdout).toBe('2\n')
  })

  it('reseed reports what it could do and names the sandbox', async () => {
    const agent = await start()
    const client = await agent.client()
    const report = await client.reseed({ sandboxId: 'fork-2', entropy: Buffer.alloc(32, 7) })
    expect(['mixed', 'credited']).toContain(report.entropy)
    expect(report).toMatchObject({ hostnameErrno: 0, entropyErrno: 0 })
    expect(Math.abs(report.behindMs)).toBeLessThan(1_000)
    expect((await agent.client()).info.sandboxId).toBe('fork-2')
  })
})
