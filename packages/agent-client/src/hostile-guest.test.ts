import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { FaasError } from '@faas-platform/core'
import type { AgentClient } from './agent-client.js'
import { AgentProcess, Collected, until } from './testing/agent-process.js'

const ENV = { PATH: '/usr/bin:/bin' }
const sh = (script: string) => ({ argv: ['sh', '-c', script], env: ENV })

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

const MIB = 1024 * 1024

describe('starting what can not start', () => {
  const failure = (spec: object) => client.exec({ argv: ['true'], env: ENV, ...spec }, new Collected())
  it.each([
    ['a missing command', { argv: ['no-such-command'] }, 'command-not-found', 2],
    ['a missing path', { argv: ['/no/such/command'] }, 'command-not-found', 2],
    ['a file without the execute bit', { argv: ['/etc/passwd'] }, 'not-executable', 13],
    ['a directory', { argv: ['/etc'] }, 'not-executable', 13],
    ['a missing directory', { cwd: '/no/such/dir' }, 'bad-cwd', 2],
    ['a file as directory', { cwd: '/etc/passwd' }, 'bad-cwd', 20],
    ['an unknown user', { user: 'who' }, 'unknown-user', undefined],
    ['an unknown group', { user: 'root:who' }, 'unknown-user', undefined],
    ['an argument past the kernel limit', { argv: ['true', 'x'.repeat(200_000)] }, 'arguments-too-big', 7],
    ['arguments past the kernel limit together', { argv: ['true', ...Array.from({ length: 60 }, () => 'x'.repeat(100_000))] }, 'arguments-too-big', 7],
    ['arguments past the protocol limit', { argv: ['true', 'x'.repeat(9_000_000)] }, 'arguments-too-big', undefined],
  ])('%s is a typed error', async (_name, spec, reason, errno) => {
    await expect(failure(spec)).rejects.toMatchObject({
      code: 'execution/spawn-failed',
      details: { reason, ...(errno === undefined ? {} : { errno }) },
    })
  })

  it('strings with NUL bytes and an empty argv are invalid', async () => {
    await expect(failure({ argv: [] })).rejects.toMatchObject({ code: 'request/invalid' })
    await expect(failure({ argv: ['a\0b'] })).rejects.toMatchObject({ code: 'request/invalid' })
    await expect(failure({ cwd: '/\0' })).rejects.toMatchObject({ code: 'request/invalid' })
  })

  it('leaves nothing behind', async () => {
    const descriptors = async (): Promise<number> => {
      const io = new Collected()
      await (await client.exec(sh(`ls /proc/${agent.child.pid}/fd | wc -l`), io)).wait()
      return Number(io.stdout)
    }
    const before = await descriptors()
    for (let i = 0; i < 50; i++) await failure({ argv: ['nope'], stdin: 'pipe' }).catch(() => undefined)
    expect(await descriptors()).toBe(before)
  })
})

describe('output', () => {
  it('1 GiB passes with flat memory on both ends', async () => {
    await using fresh = await AgentProcess.listen() // its peak must be this test's own
    const own = await fresh.client()
    const total = 1024 * MIB
    await (await own.exec(sh('head -c 100000000 /dev/zero'), { onOutput: () => undefined })).wait()
    const [agentBefore, hostBefore] = [fresh.memoryBytes(), process.memoryUsage.rss()]
    let seen = 0
    let hostPeak = 0
    const exec = await own.exec(sh(`head -c ${total} /dev/zero`), {
      onOutput: (_stream, bytes) => {
        seen += bytes.length
        if ((seen & 0xffffff) < bytes.length) hostPeak = Math.max(hostPeak, process.memoryUsage.rss())
      },
    })
    expect(await exec.wait()).toMatchObject({ exitCode: 0, stdoutBytes: total })
    expect(seen).toBe(total)
    expect(fresh.memoryBytes('VmHWM') - agentBefore).toBeLessThan(MIB)
    expect(hostPeak - hostBefore).toBeLessThan(96 * MIB)
    await own.close()
  }, 60_000)

  it('a slow reader slows the guest and fills nobody', async () => {
    let release: () => void = () => undefined
    const held = new Promise<void>((resolve) => (release = resolve))
    let seen = 0
    const exec = await client.exec(sh('head -c 50000000 /dev/zero; echo done >&2'), {
      onOutput: async (stream, bytes) => {
        if (stream === 'stdout') {
          await held
          seen += bytes.length
        }
      },
    })
    const waiting = (): boolean => readFileSync(`/proc/${exec.pid}/status`, 'utf8').includes('State:\tS')
    await until('the guest waits', waiting)
    const before = agent.memoryBytes()
    for (let i = 0; i < 20; i++) await client.ping()
    expect((await client.listExecs())[0]?.stdout.head).toBeLessThanOrEqual(256 * 1024)
    expect(agent.memoryBytes() - before).toBeLessThan(MIB)
    release()
    expect(await exec.wait()).toMatchObject({ exitCode: 0, stdoutBytes: 50_000_000 })
    expect(seen).toBe(50_000_000)
  })

  it('one blocked stream does not hold up the other, or another command', async () => {
    let stderr = ''
    let release: () => void = () => undefined
    const held = new Promise<void>((resolve) => (release = resolve))
    const exec = await client.exec(sh('(head -c 10000000 /dev/zero) & echo aside >&2; wait'), {
      onOutput: (stream, bytes) => {
        if (stream === 'stdout') return held
        stderr += Buffer.from(bytes).toString()
        return undefined
      },
    })
    await until('stderr came', () => stderr === 'aside\n')
    await (await client.exec(sh('true'), new Collected())).wait()
    release()
    await exec.wait()
  })

  it('a sink that throws ends the command and is the reason', async () => {
    const exec = await client.exec(sh('yes'), {
      onOutput: () => {
        throw new Error('sink full')
      },
    })
    await expect(exec.wait()).rejects.toThrow('sink full')
    await until('it was killed', async () => (await client.listExecs()).length === 0)
  })

  it('a sink whose promise rejects ends the command too', async () => {
    const exec = await client.exec(sh('yes'), { onOutput: () => Promise.reject(new Error('later')) })
    await expect(exec.wait()).rejects.toThrow('later')
    await until('it was killed', async () => (await client.listExecs()).length === 0)
  })
})

describe('ends', () => {
  it('an abort kills the group, rejects with the reason, and frees everything', async () => {
    const stop = new AbortController()
    const io = new Collected()
    const exec = await client.exec(sh('trap "" TERM INT; sleep 600 & echo $!; wait; wait'), io, { signal: stop.signal })
    await until('it runs', () => io.stdout.endsWith('\n'))
    stop.abort(new FaasError('execution/deadline', { message: 'too slow' }))
    await expect(exec.wait()).rejects.toMatchObject({ code: 'execution/deadline' })
    await until('it is gone', async () => (await client.listExecs()).length === 0)
    expect(() => process.kill(Number(io.stdout), 0)).toThrow()
  })

  it('an abort before the start, or during it, starts nothing that stays', async () => {
    await expect(client.exec(sh('sleep 600'), new Collected(), { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'execution/cancelled' })
    const stop = new AbortController()
    const starting = client.exec(sh('sleep 600'), new Collected(), { signal: stop.signal })
    stop.abort()
    await expect(starting).rejects.toMatchObject({ code: 'execution/cancelled' })
    await until('it is gone', async () => (await client.listExecs()).length === 0)
  })

  it('a daemon that keeps the pipes does not hold up the exit, and lives on', async () => {
    const io = new Collected()
    const begin = performance.now()
    const exec = await client.exec(sh('(sleep 1; echo late; exec sleep 600) & echo $!'), io, { drainMs: 100 })
    const exit = await exec.wait()
    expect(exit).toMatchObject({ exitCode: 0, drainExpired: true })
    expect(performance.now() - begin).toBeLessThan(1_000)
    const daemon = Number(io.stdout)
    await until('it has written and was not killed for it', () => readFileSync(`/proc/${daemon}/cmdline`, 'utf8').startsWith('sleep\x00600'))
    process.kill(daemon, 'SIGKILL')
  })

  it('a daemon that floods the pipe does not hold up the exit either', async () => {
    let daemon = ''
    const onOutput = (stream: string, bytes: Uint8Array): void => {
      if (stream === 'stderr') daemon += Buffer.from(bytes).toString()
    }
    const exec = await client.exec(sh('yes & echo $! >&2'), { onOutput }, { drainMs: 20 })
    expect(await exec.wait()).toMatchObject({ exitCode: 0, drainExpired: true })
    process.kill(Number(daemon), 'SIGKILL')
  })

  it('all output before the exit arrives however slowly it is read', async () => {
    let seen = 0
    const exec = await client.exec(sh('head -c 60000 /dev/zero; sleep 600 & exit 0'), {
      onOutput: async (_stream, bytes) => {
        await new Promise((resolve) => setTimeout(resolve, 50))
        seen += bytes.length
      },
    }, { drainMs: 10, windowBytes: 4096 })
    await exec.wait()
    expect(seen).toBe(60_000)
    await (await client.exec(sh(`pkill -KILL -s ${exec.pid}`), new Collected())).wait()
  })

  it('orphans are reaped and counted', async () => {
    const before = (await client.ping()).orphansReaped
    await (await client.exec(sh('for i in 1 2 3 4 5 6 7 8 9 10; do (setsid sh -c "sleep 0.05" &) ; done'), new Collected())).wait()
    await until('ten orphans were reaped', async () => (await client.ping()).orphansReaped >= before + 10)
    const io = new Collected()
    await (await client.exec(sh(`ps -o stat= --ppid ${agent.child.pid} | grep -c Z`), io)).wait()
    expect(io.stdout.trim()).toBe('0')
  })

  it('kill-all ends every command and not the agent', async () => {
    const execs = await Promise.all([1, 2, 3].map(() => client.exec(sh('sleep 600'), new Collected())))
    await client.killAll()
    for (const exec of execs) expect(await exec.wait()).toMatchObject({ signal: 'SIGKILL' })
    await client.ping()
  })
})

describe('terminals', () => {
  it('a command has a controlling terminal of the asked size, and sees a resize', async () => {
    const io = new Collected()
    const exec = await client.exec(
      { ...sh('stty size; tty; trap "stty size; exit 4" WINCH; echo ready; while :; do sleep 0.02; done'), tty: { cols: 91, rows: 33 }, stdin: 'pipe' },
      io,
    )
    await until('it is ready', () => io.stdout.includes('ready'))
    await exec.resize(120, 40)
    expect(await exec.wait()).toMatchObject({ exitCode: 4 })
    expect(io.stdout).toMatch(/^33 91\r\n\/dev\/pts\/\d+\r\nready\r\n40 120\r\n$/)
    expect(io.stderr).toBe('')
  })

  it('control characters typed into it act as signals and end of input', async () => {
    const io = new Collected()
    const cat = await client.exec({ argv: ['cat'], env: ENV, tty: { cols: 80, rows: 24 }, stdin: 'pipe' }, io)
    await cat.writeStdin(Buffer.from('hello\n'))
    await until('it was echoed and printed', () => io.stdout === 'hello\r\nhello\r\n')
    await cat.closeStdin()
    expect(await cat.wait()).toMatchObject({ exitCode: 0 })
    const sleep = await client.exec({ argv: ['sleep', '600'], env: ENV, tty: { cols: 80, rows: 24 }, stdin: 'pipe' }, io)
    await sleep.writeStdin(Buffer.from([3]))
    expect(await sleep.wait()).toMatchObject({ signal: 'SIGINT' })
  })

  it('a resize without a terminal is refused', async () => {
    const exec = await client.exec(sh('sleep 600'), new Collected())
    await expect(exec.resize(1, 1)).rejects.toMatchObject({ code: 'request/invalid' })
    await exec.kill('SIGKILL')
    await exec.wait()
  })
})

describe('what a driver may ask for a command', () => {
  it('limits, umask, OOM score, capabilities and no-new-privileges reach it', async () => {
    const io = new Collected()
    const exec = await client.exec(
      sh('ulimit -n; ulimit -Hn; umask; cat /proc/self/oom_score_adj; grep -E "Cap(Eff|Prm|Bnd)|NoNewPrivs" /proc/self/status'),
      io,
      { rlimits: [{ resource: 7, soft: 100n, hard: 200n }], umask: 0o77, oomScoreAdj: 321, capabilities: 0x5n, noNewPrivileges: true },
    )
    await exec.wait()
    expect(io.stdout.split('\n').slice(0, 4)).toEqual(['100', '200', '0077', '321'])
    expect(io.stdout).toMatch(/CapPrm:\t0{15}5\nCapEff:\t0{15}5\nCapBnd:\t0{15}5\nNoNewPrivs:\t1/)
  })

  it('without limits of its own it has those of the agent at its start', async () => {
    const io = new Collected()
    await (await client.exec(sh('ulimit -n'), io)).wait()
    const own = /Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1]
    expect(io.stdout.trim()).toBe(own)
  })

  it('the agent can not be inspected by a command of its own user', async () => {
    const io = new Collected()
    const exec = await client.exec({ ...sh(`readlink /proc/${agent.child.pid}/exe; cat /proc/${agent.child.pid}/environ | wc -c`), user: '0:0' }, io, { capabilities: 0n })
    await exec.wait()
    expect(io.stdout.trim()).toBe('0')
    expect(io.stderr).toMatch(/denied/)
  })

  it('bytes that are no text pass unchanged', async () => {
    const bytes = randomBytes(100_000)
    const parts: Uint8Array[] = []
    const exec = await client.exec({ argv: ['cat'], env: ENV, stdin: bytes }, { onOutput: (_s, b) => void parts.push(b) })
    await exec.wait()
    expect(Buffer.concat(parts).equals(bytes)).toBe(true)
  })
})
