/** The agent as PID 1 of a namespace of its own, as runtimes start it. Needs root and `unshare`. */
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentClient } from './agent-client.js'
import { AGENT_BINARY, Collected, until } from './testing/agent-process.js'

const ENV = { PATH: '/usr/bin:/bin' }
const sh = (script: string) => ({ argv: ['sh', '-c', script], env: ENV })

let dir: string
let runtime: ChildProcess
let client: AgentClient
let socketPath: string

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'faas-agent-pid1-'))
  socketPath = join(dir, 'sub/agent.sock')
  runtime = spawn('unshare', ['--pid', '--fork', '--kill-child=SIGKILL', '--mount', '--mount-proc', '--uts', AGENT_BINARY, '--listen', socketPath], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  await once(runtime.stdout ?? runtime, 'data')
  client = await AgentClient.connectUnix(socketPath)
})
afterAll(async () => {
  await client.shutdown().catch(() => undefined) // a failed test may have ended it
  if (runtime.exitCode === null) await once(runtime, 'exit')
  rmSync(dir, { recursive: true, force: true })
})

async function run(script: string): Promise<Collected> {
  const io = new Collected()
  await (await client.exec(sh(script), io)).wait()
  return io
}

describe('as PID 1', () => {
  it('is PID 1, and lets go of the descriptors it was started with', async () => {
    expect(client.info.pid).toBe(1)
    const io = await run('readlink /proc/1/fd/0 /proc/1/fd/1 /proc/1/fd/2')
    expect(io.stdout).toBe('/dev/null\n/dev/null\n/dev/null\n')
  })

  it('accepts the host and refuses processes of its own sandbox', async () => {
    const script = `require("net").connect(${JSON.stringify(socketPath)}).on("close", () => console.log("closed")).on("data", () => console.log("served")).on("error", () => undefined).write(Buffer.alloc(12))`
    const io = new Collected()
    const exec = await client.exec({ argv: [process.execPath, '-e', script], env: ENV }, io)
    await exec.wait()
    expect(io.stdout).toBe('closed\n')
  })

  it('reaps every orphan', async () => {
    await run('for i in $(seq 200); do (setsid sleep 0.0$((i % 10)) &) ; done')
    await until('no zombies are left', async () => (await run('ps -eo stat= | grep -c "^Z"')).stdout.trim() === '0')
    await until('all were counted', async () => (await client.ping()).orphansReaped >= 200)
  })

  it('survives what its guests send it', async () => {
    await run('for s in TERM INT HUP QUIT USR1 USR2 PIPE ALRM KILL STOP; do kill -$s 1; done')
    await client.ping()
  })

  it('kill-all reaches processes that left their group', async () => {
    await run('setsid sleep 12345 & setsid sh -c "trap \\"\\" TERM; sleep 12345" & true')
    await client.killAll()
    await until('they are gone', async () => (await run('pgrep -x sleep | wc -l')).stdout.trim() === '0')
  })

  it('sets its own host name when reseeded', async () => {
    expect(await client.reseed({ sandboxId: 'a', hostname: 'fork-7' })).toMatchObject({ hostnameErrno: 0 })
    expect((await run('hostname')).stdout).toBe('fork-7\n')
  })

  it('works on without a working directory, /proc, or a way to open files', async () => {
    const io = await run('mkdir /tmp/gone-$$ && cd /tmp/gone-$$ && rmdir /tmp/gone-$$ && umount -l /proc && echo still')
    expect(io.stdout).toBe('still\n')
    expect((await run('echo here')).stdout).toBe('here\n')
    await run('mount -t proc proc /proc')
  })

  it('a fork bomb within a process limit ends in a typed result and frees everything', async () => {
    const io = new Collected()
    const exec = await client.exec({ ...sh('bomb() { bomb | bomb & }; bomb; sleep 600'), user: '54321:54321' }, io, { rlimits: [{ resource: 6, soft: 60n, hard: 60n }] })
    await until('it has run into the limit', () => io.stderr.length > 0)
    await client.killAll()
    expect(await exec.wait()).toMatchObject({ signal: 'SIGKILL' })
    await until('nothing is left', async () => {
      await client.killAll()
      return (await run('ps -u 54321 -o pid= | wc -l')).stdout.trim() === '0'
    })
  })
})
