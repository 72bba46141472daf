/** Contract: running commands: arguments, environment, user, directory, exit. */
import type { Sandbox } from '@faas-platform/core'
import { beforeAll, expect, it } from 'vitest'
import { PATH, type Bench } from './bench.js'

export function execTests(bench: () => Bench): void {
  let sandbox: Sandbox
  beforeAll(async () => {
    sandbox = await bench().sandbox()
  })
  const run: Bench['run'] = (...args) => bench().run(...args)

  it('every exit code from 0 to 255 arrives as it is', async () => {
    const seen: (number | null)[] = []
    for (let first = 0; first < 256; first += 8) {
      const codes = Array.from({ length: 8 }, (_, i) => first + i)
      seen.push(...(await Promise.all(codes.map((code) => run(sandbox, `exit ${code}`)))).map(({ exit }) => exit.exitCode))
    }
    expect(seen).toEqual(Array.from({ length: 256 }, (_, i) => i))
  })

  it('a command ended by a signal has the signal and no exit code', async () => {
    const { exit } = await run(sandbox, 'kill -KILL $$')
    expect(exit).toMatchObject({ exitCode: null, signal: 'SIGKILL', oomKilled: false })
    expect((await run(sandbox, 'kill -TERM $$')).exit).toMatchObject({ exitCode: null, signal: 'SIGTERM' })
  })

  it('arguments arrive exactly: spaces, quotes, unicode, newlines, empty ones', async () => {
    const args = ['a b', '', '"quoted"', "it's", '$HOME `id` $(id)', 'ünï → 漢字 🎉', 'line\nbreak', '\\', '-n', '--', '*']
    const { out } = await run(sandbox, ['/bin/sh', '-c', 'printf "%s\\0" "$@"', 'name', ...args])
    expect(out.split('\0').slice(0, -1)).toEqual(args)
  })

  it('the environment is exactly the given one', async () => {
    const env = { PATH, EMPTY: '', SPACED: ' a  b ', QUOTED: `"'$X`, UNICODE: 'ü→漢' }
    const { out } = await run(sandbox, ['env'], { env })
    expect(Object.fromEntries(out.trimEnd().split('\n').map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]))).toEqual(env)
  })

  it('an environment of 10,000 entries arrives whole', async () => {
    const env = Object.fromEntries(Array.from({ length: 10_000 }, (_, i) => [`VARIABLE_${String(i).padStart(5, '0')}`, `value ${i}`]))
    const { out } = await run(sandbox, ['env'], { env: { ...env, PATH } })
    const lines = out.trimEnd().split('\n')
    expect(lines).toHaveLength(10_001)
    expect(lines).toContain('VARIABLE_09999=value 9999')
  })

  it('a MiB of arguments arrives whole', async () => {
    const args = Array.from({ length: 16 }, (_, i) => String.fromCharCode(97 + i).repeat(65_000))
    const { out, exit } = await run(sandbox, ['/bin/sh', '-c', 'echo $#; for a in "$@"; do printf "%s" "$a"; done | wc -c', 'name', ...args])
    expect(exit.exitCode).toBe(0)
    expect(out).toBe(`16\n${16 * 65_000}\n`)
  })

  it('more arguments than the kernel takes are refused as too big, and the sandbox goes on', async () => {
    const args = Array.from({ length: 48 }, () => 'x'.repeat(65_000))
    await expect(run(sandbox, ['echo', ...args])).rejects.toMatchObject({ code: 'execution/spawn-failed', details: { reason: 'arguments-too-big' } })
    await expect(run(sandbox, ['echo', 'y'.repeat(200_000)])).rejects.toMatchObject({ code: 'execution/spawn-failed', details: { reason: 'arguments-too-big' } })
    expect((await run(sandbox, 'echo on')).out).toBe('on\n')
  })

  it('the command runs in the given directory, and in / without one', async () => {
    expect((await run(sandbox, ['pwd'], { cwd: '/tmp' })).out).toBe('/tmp\n')
    expect((await run(sandbox, ['pwd'])).out).toBe('/\n')
  })

  it.each(['/no/such/dir', '/etc/passwd'])('the working directory %s is refused', async (cwd) => {
    await expect(run(sandbox, ['pwd'], { cwd })).rejects.toMatchObject({ code: 'execution/spawn-failed', details: { reason: 'bad-cwd' } })
  })

  it('a directory deleted under a running command does not stop it', async () => {
    const { out, exit } = await run(sandbox, 'mkdir /tmp/gone && cd /tmp/gone && rmdir /tmp/gone && echo alive')
    expect(out).toBe('alive\n')
    expect(exit.exitCode).toBe(0)
    await expect(run(sandbox, ['pwd'], { cwd: '/tmp/gone' })).rejects.toMatchObject({ code: 'execution/spawn-failed' })
  })

  it.each([
    ['1234', '1234 0'],
    ['1234:99', '1234 99'],
    ['nobody', '65534 65534'],
    ['root', '0 0'],
    ['nobody:root', '65534 0'],
  ])('user %s runs as %s', async (user, ids) => {
    expect((await run(sandbox, 'echo $(id -u) $(id -g)', { user })).out).toBe(`${ids}\n`)
  })

  it('an unknown user is refused', async () => {
    await expect(run(sandbox, 'id', { user: 'nobody-knows' })).rejects.toMatchObject({ code: 'execution/spawn-failed', details: { reason: 'unknown-user' } })
  })

  it.each(['no-such-command', '/no/such/command', './relative'])('the command %s is not found', async (name) => {
    await expect(run(sandbox, [name])).rejects.toMatchObject({ code: 'execution/spawn-failed', details: { reason: 'command-not-found' } })
  })

  it('a file without execute permission is refused', async () => {
    await run(sandbox, 'echo text > /tmp/plain; chmod 644 /tmp/plain')
    await expect(run(sandbox, ['/tmp/plain'])).rejects.toMatchObject({ code: 'execution/spawn-failed', details: { reason: 'not-executable' } })
  })

  it('a script with an interpreter line runs', async () => {
    await run(sandbox, 'printf "#!/bin/sh\\necho script \\$1\\n" > /tmp/script; chmod 755 /tmp/script')
    expect((await run(sandbox, ['/tmp/script', 'works'])).out).toBe('script works\n')
  })

  it('32 commands at once in one sandbox do not mix', async () => {
    const results = await Promise.all(Array.from({ length: 32 }, (_, i) => run(sandbox, `echo out ${i}; echo err ${i} >&2; exit ${i}`)))
    expect(results.map(({ out, err, exit }) => [out, err, exit.exitCode])).toEqual(Array.from({ length: 32 }, (_, i) => [`out ${i}\n`, `err ${i}\n`, i]))
  })

  it('files written by one command are there for the next', async () => {
    await run(sandbox, 'echo kept > /tmp/kept')
    expect((await run(sandbox, 'cat /tmp/kept')).out).toBe('kept\n')
  })

  it('the usage of a command is measured', async () => {
    const { exit } = await run(sandbox, 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done')
    expect(exit.usage.wallMs).toBeGreaterThan(0)
    expect(exit.usage.userCpuMs + exit.usage.systemCpuMs).toBeGreaterThan(1)
    expect(exit.usage.maxRssBytes).toBeGreaterThan(10_000)
  })
}
