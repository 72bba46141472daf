import { asId, type ExecSpec, type SandboxId, type SandboxSpec } from '@faas-platform/core'
import { describe, expect, it } from 'vitest'
import { text } from '../bytes.js'
import { FakeClock } from '../fake-clock.js'
import { BASE_REFERENCE, MemoryDriver, type MemoryDriverOptions } from './driver.js'

const signal = new AbortController().signal

async function sandboxOf(options: MemoryDriverOptions = {}) {
  const driver = new MemoryDriver(options)
  const image = await driver.images.resolve(BASE_REFERENCE, { pull: 'never', signal })
  const spec: SandboxSpec = {
    id: asId<SandboxId>('sandbox-1'), image, hostname: 'box', labels: {}, network: { mode: 'none', allowCidrs: [] },
    limits: { memoryBytes: 64 * 1024 * 1024, cpuCores: 1, pidsMax: 16, writableBytesMax: 1024 * 1024 },
  }
  return { driver, sandbox: await driver.create(spec, { signal }) }
}

async function sh(script: string, options: MemoryDriverOptions = {}, spec: Partial<ExecSpec> = {}) {
  const { sandbox } = await sandboxOf(options)
  let stdout = ''
  let stderr = ''
  const handle = await sandbox.exec({ argv: ['/bin/sh', '-c', script], env: { PATH: '/bin' }, ...spec }, { onOutput: (stream, bytes) => void (stream === 'stdout' ? (stdout += text(bytes)) : (stderr += text(bytes))) }, { signal })
  const exit = await handle.wait()
  return { stdout, stderr, code: exit.exitCode, signal: exit.signal, exit }
}

describe('the shell of the in-memory driver', () => {
  const cases: [script: string, stdout: string, code?: number][] = [
    ['echo hello && id -u', 'hello\n0\n'],
    ['false || echo b; true && echo c', 'b\nc\n'],
    ['exit 7', '', 7],
    ['x=1; y="$x 2"; echo "$y" $y \'$x\' ${z:-none}', '1 2 1 2 $x none\n'],
    ['i=0; while [ $i -lt 3 ]; do echo $i; i=$((i+1)); done', '0\n1\n2\n'],
    ['for w in a "b c" $(echo d e); do echo "<$w>"; done', '<a>\n<b c>\n<d>\n<e>\n'],
    ['if test -d /tmp; then echo yes; else echo no; fi', 'yes\n'],
    ['echo one > /tmp/f; echo two >> /tmp/f; cat < /tmp/f; wc -c /tmp/f', 'one\ntwo\n8 /tmp/f\n'],
    ['seq 5 | head -n 2', '1\n2\n'],
    ['yes | head -c 4', 'y\ny\n'],
    ['(cd /tmp; pwd); pwd', '/tmp\n/\n'],
    ['sleep 0 & wait $!; echo $?', '0\n'],
    ["printf 'a\\tb\\n%s-%d\\n' x 3", 'a\tb\nx-3\n'],
    ['nosuch; echo $?', '127\n'],
    ['{ echo out; echo err >&2; } 2>/dev/null', 'out\n'],
    ['kill -TERM $$; echo never', '', undefined],
    ["trap 'echo caught' TERM; kill -TERM $$; echo after", 'caught\nafter\n'],
    ["trap '' TERM; kill -TERM $$; echo alive", 'alive\n'],
    ['cd /nowhere || echo stayed', 'stayed\n'],
    ['until false; do echo once; break; done', 'once\n'],
    ['! false && echo negated', 'negated\n'],
    ['ln -s /etc/passwd /tmp/l; readlink /tmp/l; head -n 1 /tmp/l', '/etc/passwd\nroot:x:0:0:root:/root:/bin/sh\n'],
    ['A=1 env | head -n 2', 'PATH=/bin\nA=1\n'],
    ['hostname', 'box\n'],
    ['echo "#!/bin/sh" > /tmp/s; echo "echo script \\$1" >> /tmp/s; chmod 755 /tmp/s; /tmp/s arg', 'script arg\n'],
  ]
  it.each(cases)('%s', async (script, stdout, code = 0) => {
    const result = await sh(script)
    expect(result.stdout).toBe(stdout)
    if (script.includes('never')) expect(result).toMatchObject({ code: null, signal: 'SIGTERM' })
    else expect(result.code).toBe(code)
  })

  it('a syntax error is reported by the shell and ends it with 2', async () => {
    expect(await sh('if; then')).toMatchObject({ code: 2, stderr: expect.stringContaining('syntax error') as string })
  })

  it('the process limit makes a fork fail', async () => {
    expect(await sh('while :; do sleep 1000 & done')).toMatchObject({ code: 2, stderr: expect.stringContaining("can't fork") as string })
  })

  it('the memory limit kills the greedy process and says so', async () => {
    const result = await sh('memhog 100; echo "memhog: $?"')
    expect(result.stdout).toBe('memhog: 137\n')
    expect(result.exit.oomKilled).toBe(true)
  })

  it('the writable limit ends a write with ENOSPC', async () => {
    const result = await sh('dd if=/dev/zero of=/tmp/f bs=1M count=4; echo $?')
    expect(result.stdout).toBe('1\n')
    expect(result.stderr).toContain('No space left on device')
  })
})

describe('faults of the in-memory driver', () => {
  it('sleeps on the injected clock', async () => {
    const clock = new FakeClock()
    const { sandbox } = await sandboxOf({ clock })
    const handle = await sandbox.exec({ argv: ['sleep', '3600'], env: { PATH: '/bin' } }, { onOutput() {} }, { signal })
    await clock.whenPending()
    await clock.advance(3_600_000)
    expect((await handle.wait()).usage.wallMs).toBe(3_600_000)
  })

  it('fails exactly as many creations as asked and counts them', async () => {
    const { driver, sandbox } = await sandboxOf()
    driver.faults.failCreates = 1
    const again = { ...sandbox.spec, id: asId<SandboxId>('sandbox-2') }
    await expect(driver.create(again, { signal })).rejects.toMatchObject({ code: 'sandbox/create-failed' })
    await driver.create(again, { signal })
    expect(driver.counts).toMatchObject({ created: 2, failed: 1 })
    await driver[Symbol.asyncDispose]()
    expect(driver.live()).toEqual({ sandboxes: 0, processes: 0, retained: 0, creating: 0 })
  })

  it('a lost sandbox settles exited and rejects its running exec', async () => {
    const { driver, sandbox } = await sandboxOf()
    const handle = await sandbox.exec({ argv: ['sleep', '1000'], env: { PATH: '/bin' } }, { onOutput() {} }, { signal })
    driver.lose(sandbox.id, 'oom')
    await expect(handle.wait()).rejects.toMatchObject({ code: 'sandbox/oom' })
    expect(await sandbox.exited).toMatchObject({ reason: 'oom' })
    await sandbox[Symbol.asyncDispose]()
    expect(driver.live().sandboxes).toBe(0)
  })
})
