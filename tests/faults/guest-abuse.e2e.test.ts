/**
 * Hostile and broken guests over HTTP, on every runtime: each ends in the right typed result, and after each of them
 * the host holds exactly what it held before.
 *
 * The pool is off, so that "before" is nothing but the gateway; end states are not retained for the same reason.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { isDeepStrictEqual } from 'node:util'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DataDir, makeDataDir } from '../support/data-dir.js'
import { type GatewayProcess, imagesImported, startGateway } from '../support/gateway-process.js'
import { type HostResources, hostResources } from '../support/host-resources.js'
import { call, execute, type Reply } from '../support/http.js'
import { ALL_RUNTIMES, HostRuntimes } from '../support/runtimes.js'

const MIB = 1024 * 1024
/** The kernel's limit of one argument, its terminating zero included (MAX_ARG_STRLEN). */
const ARGUMENT_BYTES_MAX = 128 * 1024
const CONCURRENCY = 4
/** Not QUIT: busybox's shell ignores it. */
const SIGNALS = { HUP: 1, INT: 2, ILL: 4, ABRT: 6, FPE: 8, KILL: 9, USR1: 10, SEGV: 11, PIPE: 13, ALRM: 14, TERM: 15 } as const

let dataDir: DataDir
let gateway: GatewayProcess
let host: HostRuntimes
let baseline: HostResources

beforeAll(async () => {
  dataDir = await makeDataDir('abuse')
  const env = { FAAS_DISABLE_PREWARM: '1', FAAS_RETAIN_MS: '0', FAAS_MAX_CONCURRENCY: String(CONCURRENCY), FAAS_MAX_BODY_BYTES: String(16 * MIB), ...dataDir.env }
  gateway = await startGateway({ dataDir: dataDir.path, env })
  host = await HostRuntimes.of(gateway)
  await imagesImported(gateway)
  // What an engine keeps for good (the agent's volume, for one) comes with the first use.
  for (const runtime of host.usable()) await execute(gateway.url, { command: 'true', runtime })
  baseline = await settled()
})

afterAll(async () => {
  await gateway?.kill('SIGTERM')
  await dataDir?.[Symbol.asyncDispose]()
})

describe.each(ALL_RUNTIMES)('an abusive guest on %s', (runtime) => {
  /** One test: skipped without the runtime, and over only when the host is as it was. */
  function abuse(title: string, test: () => Promise<void>, timeoutMs = 60_000): void {
    it(title, async ({ skip }) => {
      const gate = host.gate(runtime)
      skip(gate.missing, gate.reason)
      await test()
      await backToBaseline()
    }, timeoutMs)
  }
  const run = (body: object): Promise<Reply> => execute(gateway.url, { runtime, timeout_ms: 30_000, ...body })

  abuse('a fork bomb is held by the process limit until its deadline', async () => {
    const reply = await run({ command: 'b() { b | b & }; b & exec sleep 300', limits: { pids: 64 }, timeout_ms: 2500 })
    // The limit counts the threads of gVisor's kernel, too: a bomb may take that kernel down, and only that.
    if (runtime === 'gvisor' && reply.status !== 504) expect(summary(reply)).toMatchObject(LOST)
    else expect(summary(reply)).toMatchObject(DEADLINE)
  })

  abuse('a memory bomb is a result: out of memory, killed', async () => {
    const reply = await run({ command: ['awk', 'BEGIN { s = "x"; for (;;) s = s s }'], limits: { memory_mb: 64 } })
    expect(summary(reply)).toEqual({ status: 200, outcome: 'oom', exit_code: 137, code: 'sandbox/oom' })
  })

  abuse('a memory bomb in a child of the command leaves the command its own exit code', async () => {
    const reply = await run({ command: `awk 'BEGIN { s = "x"; for (;;) s = s s }'; echo "child: $?"; exit 3`, limits: { memory_mb: 64 } })
    // The kernel may take the agent's sandbox with it: then nobody is left to print.
    expect(summary(reply)).toMatchObject({ status: 200, outcome: 'oom', code: 'sandbox/oom' })
  })

  for (const file of ['/fill', '/tmp/fill']) {
    abuse(`filling the disk at ${file} ends the command at its limit`, async () => {
      const reply = await run({ command: `echo begin; cat /dev/zero > ${file}`, limits: { disk_mb: 16 } })
      expect(summary(reply)).toMatchObject({ status: 200, outcome: 'disk_limit', code: 'execution/disk-limit' })
      expect(reply.body['stdout']).toBe('begin\n')
    })
  }

  abuse('filling /dev/shm meets its own end and nothing else does', async () => {
    const reply = await run({ command: 'cat /dev/zero > /dev/shm/fill; echo "cat: $?"; wc -c < /dev/shm/fill; rm /dev/shm/fill; echo x > /dev/shm/again && cat /dev/shm/again' })
    expect(summary(reply)).toEqual(EXITED(0))
    const [cat, bytes, again] = String(reply.body['stdout']).split('\n')
    expect([cat, again]).toEqual(['cat: 1', 'x'])
    expect(Number(bytes)).toBe(64 * MIB)
  })

  abuse('an endless flood of output ends at the log limit, head and tail are kept', async () => {
    const reply = await run({ command: 'yes 0123456789', log_bytes_max: 8 * MIB, output_bytes_max: 64 * 1024 })
    expect(summary(reply)).toMatchObject({ status: 200, outcome: 'output_limit', code: 'execution/output-limit' })
    expect(reply.body).toMatchObject({ stdout_truncated: true })
    expect(String(reply.body['stdout']).startsWith('0123456789\n')).toBe(true)
    expect(String(reply.body['stdout']).length).toBeLessThan(80 * 1024)
  })

  abuse('a large output below the limit is counted whole and shown in part', async () => {
    const reply = await run({ command: 'yes | head -c 20000000; yes | head -c 3000000 >&2', output_bytes_max: 1000 })
    expect(summary(reply)).toEqual(EXITED(0))
    expect(reply.body).toMatchObject({ stdout_bytes: 20_000_000, stderr_bytes: 3_000_000, stdout_truncated: true, stderr_truncated: true })
  })

  abuse('who sleeps past the deadline gets a 504 with what was captured', async () => {
    const reply = await run({ command: 'echo before; echo trouble >&2; sleep 300', timeout_ms: 1500 })
    expect(summary(reply)).toMatchObject(DEADLINE)
    expect(reply.body).toMatchObject({ stdout: 'before\n', stderr: 'trouble\n', error: { details: { stdout: 'before\n', stderr: 'trouble\n' } } })
  })

  abuse('ignoring SIGTERM does not outlive the deadline', async () => {
    const reply = await run({ command: `trap '' TERM INT HUP; echo deaf; while :; do sleep 0.1; done`, timeout_ms: 1500 })
    expect(summary(reply)).toMatchObject(DEADLINE)
    expect(reply.body).toMatchObject({ stdout: 'deaf\n' })
  })

  abuse('catching SIGTERM gives a last word before the end', async () => {
    const reply = await run({ command: `trap 'echo goodbye; exit 0' TERM; echo ready; while :; do sleep 0.01; done`, timeout_ms: 1500 })
    expect(summary(reply)).toMatchObject(DEADLINE)
    expect(reply.body).toMatchObject({ stdout: 'ready\ngoodbye\n' })
  })

  abuse('stopping itself with SIGSTOP does not outlive the deadline', async () => {
    expect(summary(await run({ command: 'kill -STOP $$; echo never', timeout_ms: 1500 }))).toMatchObject(DEADLINE)
  })

  abuse('burning the processor to the deadline is accounted', async () => {
    const reply = await run({ command: 'while :; do :; done', timeout_ms: 1500, limits: { cpu_cores: 0.5 } })
    expect(summary(reply)).toMatchObject(DEADLINE)
    expect((reply.body['usage'] as { cpu_ms: number }).cpu_ms).toBeGreaterThan(50)
  })

  abuse('daemonised children do not hold up the result, and are gone after it', async () => {
    const reply = await run({ command: `setsid sleep 301 & (setsid sh -c 'sleep 302 & sleep 303' > /dev/null 2>&1 &); (sleep 304 &) ; echo parent is done` })
    expect(summary(reply)).toEqual(EXITED(0))
    expect(reply.body).toMatchObject({ stdout: 'parent is done\n' })
    expect(reply.body['duration_ms']).toBeLessThan(15_000)
  })

  abuse('a command whose working directory was deleted goes on', async () => {
    const reply = await run({ command: 'mkdir /tmp/gone && cd /tmp/gone && rmdir /tmp/gone && sh -c "echo inside" && ls -A | wc -l && touch x; echo "touch: $?"' })
    expect(summary(reply)).toEqual(EXITED(0))
    expect(reply.body).toMatchObject({ stdout: 'inside\n0\ntouch: 1\n' })
  })

  abuse('what can not be started says why, as a shell would number it', async () => {
    const missing = await run({ command: ['/no/such/program'] })
    expect(summary(missing)).toEqual({ status: 200, outcome: 'spawn_failed', exit_code: 127, code: 'execution/spawn-failed' })
    const directory = await run({ command: ['/tmp'] })
    expect(summary(directory)).toEqual({ status: 200, outcome: 'spawn_failed', exit_code: 126, code: 'execution/spawn-failed' })
    const cwd = await run({ command: 'true', working_dir: '/no/such/dir' })
    expect(summary(cwd)).toEqual({ status: 200, outcome: 'spawn_failed', exit_code: 126, code: 'execution/spawn-failed' })
    const user = await run({ command: 'true', user: 'nobody-of-this-name' })
    expect(summary(user)).toEqual({ status: 200, outcome: 'spawn_failed', exit_code: 126, code: 'execution/spawn-failed' })
  })

  abuse('ten thousand environment variables arrive', async () => {
    const env = Array.from({ length: 10_000 }, (_, i) => [`NAME_${i}`, `value ${i}`])
    const reply = await run({ command: 'env | grep -c "^NAME_"; echo "$NAME_9999"', env_vars: env })
    expect(summary(reply)).toEqual(EXITED(0))
    expect(reply.body).toMatchObject({ stdout: '10000\nvalue 9999\n' })
  })

  abuse('an argument just below the limit of the kernel arrives, one at it is a spawn failure', async () => {
    const count = ['/bin/sh', '-c', 'echo "$# ${#1}"', 'sh']
    const fits = await run({ command: [...count, 'a'.repeat(ARGUMENT_BYTES_MAX - 1)] })
    expect(fits.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: `1 ${ARGUMENT_BYTES_MAX - 1}\n` })
    const tooLong = await run({ command: [...count, 'a'.repeat(ARGUMENT_BYTES_MAX)] })
    expect(summary(tooLong)).toEqual({ status: 200, outcome: 'spawn_failed', exit_code: 126, code: 'execution/spawn-failed' })
  })

  abuse('a megabyte of arguments arrives; more than the kernel takes is a result, too', async () => {
    const count = ['/bin/sh', '-c', 'echo "$#"', 'sh']
    const fits = await run({ command: [...count, ...Array.from({ length: 10_000 }, () => 'b'.repeat(100))] })
    expect(fits.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: '10000\n' })
    const tooMuch = await run({ command: [...count, ...Array.from({ length: 100 }, () => 'c'.repeat(100_000))] })
    // gVisor has no limit of the whole, only of each argument.
    if (runtime === 'gvisor' && tooMuch.body['outcome'] === 'exited') expect(tooMuch.body).toMatchObject({ exit_code: 0, stdout: '100\n' })
    else expect(summary(tooMuch)).toEqual({ status: 200, outcome: 'spawn_failed', exit_code: 126, code: 'execution/spawn-failed' })
  })

  abuse('megabytes of input arrive whole, and may be left unread', async () => {
    const input = Buffer.alloc(6 * MIB, 'input with \0 and \xff ')
    const read = await run({ command: 'wc -c; cat | wc -c', stdin_base64: input.toString('base64') })
    expect(read.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: `${input.length}\n0\n` })
    const unread = await run({ command: 'exec <&-; echo not interested', stdin_base64: input.toString('base64') })
    expect(unread.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: 'not interested\n' })
    const partly = await run({ command: 'head -c 5 | wc -c; sleep 0.1; echo done', stdin_base64: input.toString('base64') })
    expect(partly.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: '5\ndone\n' })
  })

  abuse('every exit code from 0 to 255 passes through', async () => {
    const { body: instance } = await call(`${gateway.url}/api/v1/instances`, { body: { image: 'faas/base:latest', runtime } })
    const url = `${gateway.url}/api/v1/instances/${String(instance['id'])}`
    const wrong: unknown[] = []
    const codes = Array.from({ length: 256 }, (_, code) => code)
    await Promise.all(Array.from({ length: CONCURRENCY }, async () => {
      for (let code = codes.shift(); code !== undefined; code = codes.shift()) {
        const { status, body } = await call(`${url}/exec`, { body: { command: ['/bin/sh', '-c', `exit ${code}`] } })
        const got = { status, outcome: body['outcome'], exit_code: body['exit_code'], error: body['error'] }
        const want = { status: 200, outcome: 'exited', exit_code: code, error: code === 0 ? null : `Process exited with code ${code}` }
        if (JSON.stringify(got) !== JSON.stringify(want)) wrong.push({ got, want })
      }
    }))
    expect(wrong).toEqual([])
    expect((await call(url, { method: 'DELETE' })).status).toBe(204)
  })

  abuse('a signal that ended the command is named', async () => {
    const { body: instance } = await call(`${gateway.url}/api/v1/instances`, { body: { image: 'faas/base:latest', runtime } })
    const url = `${gateway.url}/api/v1/instances/${String(instance['id'])}`
    for (const [name, number] of Object.entries(SIGNALS)) {
      const { status, body } = await call(`${url}/exec`, { body: { command: `kill -${name} $$; sleep 300` } })
      expect({ status, outcome: body['outcome'], exit_code: body['exit_code'], signal: body['signal'] }).toEqual({ status: 200, outcome: 'signaled', exit_code: 128 + number, signal: `SIG${name}` })
    }
    await call(url, { method: 'DELETE' })
  })

  abuse('closing its output early keeps the exit code', async () => {
    const reply = await run({ command: 'echo first; exec >&- 2>&-; sleep 0.2; exit 7' })
    expect(summary(reply)).toEqual(EXITED(7))
    expect(reply.body).toMatchObject({ stdout: 'first\n', stderr: '' })
  })

  abuse('bytes that are not UTF-8 arrive exactly', async () => {
    const reply = await run({ command: `printf '\\377\\376 \\000 \\303'; printf '\\200' >&2` })
    expect(summary(reply)).toEqual(EXITED(0))
    expect([reply.body['stdout_base64'], reply.body['stderr_base64']]).toEqual([Buffer.from([0xff, 0xfe, 0x20, 0, 0x20, 0xc3]).toString('base64'), 'gA=='])
  })

  abuse('orphans are reaped: hundreds of them do not use up the process limit', async () => {
    const reply = await run({ command: 'i=0; while [ $i -lt 300 ]; do (true &); i=$((i+1)); done; echo made $i', limits: { pids: 48 } })
    expect(summary(reply)).toEqual(EXITED(0))
    expect(reply.body).toMatchObject({ stdout: 'made 300\n', stderr: '' })
  })

  abuse('`kill -9 -1` ends what the guest may end, and the result still comes', async () => {
    const reply = await run({ command: 'sleep 300 & kill -9 -1; echo survived' })
    // Linux spares the caller of kill(-1); a kernel that does not leaves a signalled command.
    if (reply.body['outcome'] === 'signaled') expect(reply.body).toMatchObject({ exit_code: 137, signal: 'SIGKILL' })
    else expect(reply.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: 'survived\n' })
    expect(reply.status).toBe(200)
  })

  abuse('signals to process 1 from inside change nothing', async () => {
    const reply = await run({ command: 'for s in TERM INT HUP USR1; do kill -$s 1; done; sleep 0.2; echo alive' })
    expect(reply.body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: 'alive\n' })
  })

  abuse('process 1 can not be stopped or killed from inside, or takes only its own sandbox along', async () => {
    const stop = await run({ command: 'kill -STOP 1; sleep 0.2; echo alive', timeout_ms: 2000 })
    const kill = await run({ command: 'kill -KILL 1; sleep 0.2; echo alive' })
    if (runtime === 'gvisor') {
      // Its kernel does not shield process 1: a silent agent runs into the deadline, a dead one loses the sandbox.
      expect(summary(stop)).toMatchObject(DEADLINE)
      expect(summary(kill)).toMatchObject(LOST)
      return
    }
    for (const { body } of [stop, kill]) expect(body).toMatchObject({ outcome: 'exited', exit_code: 0, stdout: 'alive\n' })
  })

  abuse('deleting the agent and its socket does not cut an instance off', async () => {
    const { body: instance } = await call(`${gateway.url}/api/v1/instances`, { body: { image: 'faas/base:latest', runtime } })
    const url = `${gateway.url}/api/v1/instances/${String(instance['id'])}`
    await call(`${url}/exec`, { body: { command: 'rm -rf /.faas 2>/dev/null; rm -f /.faas/* /.faas/*/* 2>/dev/null; true' } })
    const { status, body } = await call(`${url}/exec`, { body: { command: 'echo still here' } })
    expect({ status, stdout: body['stdout'] }).toEqual({ status: 200, stdout: 'still here\n' })
    expect((await call(url, { method: 'DELETE' })).status).toBe(204)
  })

  abuse('a client that goes away ends its command', async () => {
    // A time to sleep that nothing else on this host names.
    const seconds = 100_000 + Math.floor(Math.random() * 800_000)
    const gone = new AbortController()
    const label = `gone-${runtime}-${seconds}`
    const request = run({ command: ['sleep', String(seconds)], labels: { test: label }, timeout_ms: 120_000 })
    const abandoned = execute(gateway.url, { runtime, command: ['sleep', String(seconds + 1)], labels: { test: `${label}-2` }, timeout_ms: 120_000 }, { signal: gone.signal })
    abandoned.catch(() => undefined)
    const kept = await eventually(() => executionOf(label, 'running'), { deadlineMs: 20_000, everyMs: 50, what: 'the kept command to run' })
    const lost = await eventually(() => executionOf(`${label}-2`, 'running'), { deadlineMs: 20_000, everyMs: 50, what: 'the abandoned command to run' })
    // gVisor's processes are its own kernel's: the host sees none by name.
    const visible = runtime !== 'gvisor'
    if (visible) expect([hostProcesses(`sleep ${seconds}`), hostProcesses(`sleep ${seconds + 1}`)]).toEqual([1, 1])
    gone.abort()
    await expect(abandoned).rejects.toThrow()
    await eventually(async () => (await call(`${gateway.url}/api/v1/executions/${lost}`)).body['status'] === 'cancelled', { deadlineMs: 15_000, everyMs: 50, what: 'the abandoned command to be cancelled' })
    if (visible) {
      await eventually(() => hostProcesses(`sleep ${seconds + 1}`) === 0, { deadlineMs: 10_000, what: 'the abandoned process to be gone' })
      expect(hostProcesses(`sleep ${seconds}`)).toBe(1)
    }
    expect((await call(`${gateway.url}/api/v1/executions/${kept}/cancel`, { method: 'POST' })).body).toMatchObject({ status: 'cancelled' })
    expect(summary(await request)).toMatchObject({ status: 499, outcome: 'cancelled', code: 'execution/cancelled' })
  })

  abuse('cancelling ends what runs, and what waits never runs', async () => {
    const submit = async (command: string): Promise<string> => String((await run({ command, async: true, timeout_ms: 120_000 })).body['request_id'])
    const state = async (id: string): Promise<unknown> => (await call(`${gateway.url}/api/v1/executions/${id}`)).body['status']
    // Half of the places are for asynchronous work.
    const running = await Promise.all(Array.from({ length: CONCURRENCY / 2 }, () => submit('echo running; sleep 300')))
    for (const id of running) await eventually(async () => (await state(id)) === 'running', { deadlineMs: 20_000, everyMs: 50, what: 'the commands to run' })
    const waiting = await submit('echo never')
    expect(await state(waiting)).toBe('queued')

    const cancelled = await call(`${gateway.url}/api/v1/executions/${waiting}/cancel`, { method: 'POST' })
    expect(cancelled).toMatchObject({ status: 200, body: { status: 'cancelled', started_at: null, result: { outcome: 'cancelled', exit_code: -1, stdout: '', error_code: 'execution/cancelled' } } })
    for (const id of running) {
      await eventually(async () => (await call(`${gateway.url}/api/v1/executions/${id}/logs?format=text`)).text === 'running\n', { deadlineMs: 20_000, everyMs: 50, what: 'the first line' })
      const ended = await call(`${gateway.url}/api/v1/executions/${id}/cancel`, { method: 'POST' })
      expect(ended).toMatchObject({ status: 200, body: { status: 'cancelled', result: { outcome: 'cancelled', stdout: 'running\n', error_code: 'execution/cancelled' } } })
      const again = await call(`${gateway.url}/api/v1/executions/${id}/cancel`, { method: 'POST' })
      expect(again).toMatchObject({ status: 409, body: { error: { code: 'execution/not-running' } } })
    }
  })
})

describe('after all of it', () => {
  it('the gateway is healthy, logged no error but lost sandboxes, and has not grown', async () => {
    expect((await call(`${gateway.url}/health`)).status).toBe(200)
    for (const runtime of host.usable()) expect((await execute(gateway.url, { command: 'echo fine', runtime })).body).toMatchObject({ stdout: 'fine\n', exit_code: 0 })
    expect(gateway.errors.filter((line) => !line.includes('The sandbox ended by itself'))).toEqual([])
    const { body } = await call(`${gateway.url}/api/v1/metrics/detailed`)
    expect((body['process'] as { rss_bytes: number }).rss_bytes).toBeLessThan(600 * MIB)
  })
})

const DEADLINE = { status: 504, outcome: 'deadline', exit_code: 124, code: 'execution/deadline' }
/** The guest ended its own sandbox. */
const LOST = { status: 500, code: 'sandbox/lost' }
const EXITED = (exit_code: number): object => ({ status: 200, outcome: 'exited', exit_code, code: null })

/** The typed part of an answer, whether it is a result or an error. */
function summary({ status, body }: Reply): { readonly status: number; readonly outcome: unknown; readonly exit_code: unknown; readonly code: unknown } {
  return { status, outcome: body['outcome'], exit_code: body['exit_code'], code: body['error_code'] ?? (body['error'] as { code?: unknown } | null)?.code ?? null }
}

/** What an idle gateway holds: the same in several looks that follow each other. */
async function settled(): Promise<HostResources> {
  let last: HostResources | undefined
  let same = 0
  return eventually(async () => {
    const now = await hostResources(dataDir)
    same = isDeepStrictEqual(now, last) && now.containers === 0 ? same + 1 : 0
    last = now
    return same >= 10 ? now : null
  }, { what: 'an idle host', deadlineMs: 20_000, everyMs: 100 })
}

async function backToBaseline(): Promise<void> {
  await eventually(async () => isDeepStrictEqual(await hostResources(dataDir), baseline), { deadlineMs: 10_000, everyMs: 50, what: 'the host to hold what it held before' })
    .catch(() => undefined)
  expect(await hostResources(dataDir)).toEqual(baseline)
}

/** The id of the one execution with this label, once it is in the state. */
async function executionOf(label: string, state: string): Promise<string | undefined> {
  const { body } = await call(`${gateway.url}/api/v1/executions?state=${state}&limit=100`)
  const executions = body['executions'] as readonly { readonly request_id: string; readonly labels: Readonly<Record<string, string>> }[]
  return executions.find((one) => one.labels['test'] === label)?.request_id
}

function hostProcesses(commandLine: string): number {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter((word) => word !== '').join(' ') === commandLine
    } catch (error) {
      if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return false // It ended meanwhile.
      throw error
    }
  }).length
}
