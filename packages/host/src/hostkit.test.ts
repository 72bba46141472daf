import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { HostKit, HostKitError } from './hostkit.js'
import { newHostKit, scratchDir } from './testing.js'

describe('the host helper', () => {
  const scratch = scratchDir()
  let hostkit: HostKit
  beforeAll(() => {
    hostkit = newHostKit()
  })
  afterAll(async () => {
    await hostkit[Symbol.asyncDispose]()
    scratch.remove()
  })
  const at = (name: string): string => join(scratch.path, name)
  const tool = async (script: string, ...more: string[]): Promise<{ code: number | null; signal: number | null; timedOut: boolean; stdout: string; stderr: string }> =>
    JSON.parse(await hostkit.call('run', `argv=/bin/sh\0-c\0${script}`, ...more, 'env=PATH=/bin:/usr/bin', 'timeout=5000')) as never

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('goes on after %s, which is for its parent, and its programs still obey it', async (signal) => {
    const { pid } = hostkit
    process.kill(pid, signal)
    expect((await tool(`kill -${signal.slice(3)} $$; echo survived`)).stdout).toBe('')
    expect(hostkit.pid).toBe(pid)
  })

  it('runs steps in order and answers each with what it cost', async () => {
    const results = await hostkit.run([['mkdir', at('d'), '750'], ['write', at('d/f'), '640', 'text'], ['usage', at('d'), 10, 1e9]])
    expect(readFileSync(at('d/f'), 'utf8')).toBe('text')
    expect(results).toHaveLength(3)
    expect(JSON.parse(results[2]?.text ?? '')).toMatchObject({ entries: 1, complete: true })
  })

  it('stops at the first failure and says which step it was', async () => {
    const failure = await hostkit.run([['mkdir', at('e'), '755'], ['write', at('no/such/file'), '644', 'x'], ['mkdir', at('never'), '755']]).then(() => null, (error: unknown) => error)
    expect(failure).toBeInstanceOf(HostKitError)
    expect(failure).toMatchObject({ op: 'write', step: 1, errno: 2 })
    expect(existsSync(at('e'))).toBe(true)
    expect(existsSync(at('never'))).toBe(false)
  })

  it('keeps output, exit code and the end of what is too long', async () => {
    expect(await tool('echo out; echo err >&2; exit 3')).toMatchObject({ code: 3, stdout: 'out\n', stderr: 'err\n', timedOut: false })
    expect((await tool('cat', 'stdin=through')).stdout).toBe('through')
    const long = await tool('head -c 100000 /dev/zero | tr "\\0" x; echo end', 'output=1000')
    expect(long.stdout).toHaveLength(1000)
    expect(long.stdout.endsWith('xend\n')).toBe(true)
  })

  it('kills a tool that takes too long, with its children', async () => {
    const begun = performance.now()
    expect(await tool('sleep 100 & sleep 100', 'timeout=50')).toMatchObject({ timedOut: true, signal: 9 })
    expect(performance.now() - begun).toBeLessThan(3_000)
  })

  it('says which step of a start failed', async () => {
    await expect(hostkit.call('run', 'argv=/no/such/tool', 'timeout=1000')).rejects.toMatchObject({ message: expect.stringContaining('exec') as string })
    await expect(hostkit.call('run', 'argv=/bin/true', 'cwd=/no/such/dir', 'timeout=1000')).rejects.toMatchObject({ message: expect.stringContaining('cwd') as string })
  })

  it('serves many calls at once', async () => {
    const outs = await Promise.all(Array.from({ length: 50 }, (_, i) => tool(`echo ${i}`)))
    expect(outs.map(({ stdout }) => stdout)).toEqual(outs.map((_, i) => `${i}\n`))
  })

  it('never writes through a link in the last place', async () => {
    writeFileSync(at('target'), 'untouched')
    symlinkSync(at('target'), at('link'))
    await expect(hostkit.call('write', at('link'), '644', 'overwritten')).rejects.toMatchObject({ errno: 40 })
    expect(readFileSync(at('target'), 'utf8')).toBe('untouched')
  })

  it('removes a tree without following links out of it', async () => {
    mkdirSync(at('outside'))
    writeFileSync(at('outside/keep'), 'x')
    mkdirSync(at('tree/deep/er'), { recursive: true })
    symlinkSync(at('outside'), at('tree/deep/er/out'))
    await hostkit.call('rmtree', at('tree'))
    expect(existsSync(at('tree'))).toBe(false)
    expect(existsSync(at('outside/keep'))).toBe(true)
    await hostkit.call('rmtree', at('tree'))
  })

  it('refuses operations that it does not know and arguments that make no sense', async () => {
    await expect(hostkit.call('fly')).rejects.toMatchObject({ message: expect.stringContaining('no operation') as string })
    await expect(hostkit.call('mkdir')).rejects.toBeInstanceOf(HostKitError)
    await expect(hostkit.call('mkdir', 'relative', '755')).rejects.toBeInstanceOf(HostKitError)
    await expect(hostkit.call('mkdir', at('x'), 'nine')).rejects.toBeInstanceOf(HostKitError)
    expect(await hostkit.call('ping')).toBe('')
  })
})

describe('a host helper that dies', () => {
  let hostkit: HostKit | undefined
  afterEach(async () => {
    await hostkit?.[Symbol.asyncDispose]()
  })

  it('fails what is pending with a typed error, and the next call starts another', async () => {
    hostkit = newHostKit()
    await hostkit.call('ping')
    const generation = hostkit.generation
    const pending = hostkit.call('run', 'argv=/bin/sleep\x00100', 'timeout=60000').then(() => null, (error: unknown) => error)
    await hostkit.call('ping')
    process.kill(hostkit.pid, 'SIGKILL')
    expect(await pending).toMatchObject({ name: 'HostKitError', op: null })
    expect(await hostkit.call('ping')).toBe('')
    expect(hostkit.generation).toBe(generation + 1)
  })

  it('answers with a typed error when there is no helper to start', async () => {
    hostkit = new HostKit({ path: '/no/such/helper', log: { debug() {}, info() {}, warn() {}, error() {} } })
    await expect(hostkit.call('ping')).rejects.toMatchObject({ name: 'HostKitError', op: null })
  })

  it('lets its successor of the same owner act only when it is gone', async () => {
    const scratch = scratchDir()
    const first = newHostKit(join(scratch.path, 'lock'))
    hostkit = newHostKit(join(scratch.path, 'lock'))
    await first.call('ping')
    let answered = false
    const second = hostkit.call('ping').then(() => (answered = true))
    await first.call('run', 'argv=/bin/sleep\x000.3', 'timeout=5000')
    expect(answered).toBe(false)
    await first[Symbol.asyncDispose]()
    await second
    expect(answered).toBe(true)
    scratch.remove()
  })
})
