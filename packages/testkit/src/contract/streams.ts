/** Contract: standard streams and terminals. */
import { MIB, type Sandbox } from '@faas-platform/core'
import { beforeAll, expect, it } from 'vitest'
import { utf8 } from '../bytes.js'
import { eventually, within } from '../eventually.js'
import { never, PATH, type Bench } from './bench.js'

const FLOOD_BYTES = 256 * MIB
/** What the host may hold of a flood: buffers of the driver and garbage between two collections. */
const HOST_GROWTH_MAX = 128 * MIB
const STDIN_BYTES = 16 * MIB

export function streamTests(bench: () => Bench): void {
  let sandbox: Sandbox
  beforeAll(async () => {
    sandbox = await bench().sandbox()
  })
  const run: Bench['run'] = (...args) => bench().run(...args)

  it('stdout and stderr are separate and each in order', async () => {
    const { out, err } = await run(sandbox, 'i=0; while [ $i -lt 200 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done')
    const lines = (letter: string): string => Array.from({ length: 200 }, (_, i) => `${letter}${i}\n`).join('')
    expect(out).toBe(lines('o'))
    expect(err).toBe(lines('e'))
  })

  it('all 256 bytes go in and come out unchanged, and nothing is added', async () => {
    const bytes = Uint8Array.from({ length: 256 * 16 }, (_, i) => i & 255)
    expect((await run(sandbox, ['cat'], { stdin: bytes })).stdout).toEqual(bytes)
    expect((await run(sandbox, ['printf', 'no newline'])).out).toBe('no newline')
    expect((await run(sandbox, ['true'])).stdout).toHaveLength(0)
  })

  it('without stdin a reader sees the end at once', async () => {
    expect((await run(sandbox, 'cat; echo done')).out).toBe('done\n')
    expect((await run(sandbox, 'cat; echo done', { stdin: new Uint8Array(0) })).out).toBe('done\n')
  })

  it('a MiB of given stdin arrives whole', async () => {
    expect((await run(sandbox, ['wc', '-c'], { stdin: new Uint8Array(1_000_000).fill(65) })).out).toBe('1000000\n')
  })

  it('stdin that the command does not read does not stop it from ending', async () => {
    expect((await run(sandbox, 'exit 3', { stdin: new Uint8Array(500_000) })).exit.exitCode).toBe(3)
  })

  it('piped stdin is a conversation, and closing it is the end', async () => {
    const { handle, out } = await bench().start(sandbox, 'while read line; do echo "got $line"; done; echo end', { stdin: 'pipe' })
    await handle.writeStdin(utf8('one\n'))
    await eventually(() => out() === 'got one\n', { what: 'the first answer' })
    await handle.writeStdin(utf8('two\n'))
    await eventually(() => out() === 'got one\ngot two\n', { what: 'the second answer' })
    await handle.closeStdin()
    expect((await handle.wait()).exitCode).toBe(0)
    expect(out()).toBe('got one\ngot two\nend\n')
  })

  it('a command that does not read its stdin slows the writer', async () => {
    const { handle, out } = await bench().start(sandbox, 'while ! test -e /tmp/go; do sleep 0.05; done; wc -c', { stdin: 'pipe' })
    let accepted = 0
    const writing = (async () => {
      for (; accepted < STDIN_BYTES; accepted += 65_536) await handle.writeStdin(new Uint8Array(65_536))
      await handle.closeStdin()
    })()
    // Round trips through the same connection: the writer had every chance to go on.
    let before = -1
    await eventually(async () => {
      const now = accepted
      await run(sandbox, 'sleep 0.1')
      const stands = now === before && accepted === now
      before = accepted
      return stands
    }, { what: 'the writer to stand still', deadlineMs: bench().ms(15_000) })
    expect(accepted).toBeLessThan(STDIN_BYTES)
    await run(sandbox, 'touch /tmp/go')
    await within(bench().ms(20_000), 'all input to be taken', writing)
    await handle.wait()
    expect(out()).toBe(`${STDIN_BYTES}\n`)
  })

  it('a slow reader slows the guest and the host memory stays flat', async () => {
    const startRss = process.memoryUsage().rss
    let peakRss = startRss
    let total = 0
    let release: () => void = () => undefined
    const gate = new Promise<void>((resolve) => (release = resolve))
    const handle = await sandbox.exec(
      { argv: ['head', '-c', String(FLOOD_BYTES), '/dev/zero'], env: { PATH } },
      {
        onOutput: async (_, bytes) => {
          total += bytes.length
          peakRss = Math.max(peakRss, process.memoryUsage().rss)
          await gate
        },
      },
      { signal: never() },
    )
    await eventually(() => total > 0, { what: 'the first output' })
    for (let i = 0; i < 3; i++) await run(sandbox, 'sleep 0.1')
    const held = total
    expect(held).toBeLessThan(8 * MIB)
    expect(process.memoryUsage().rss - startRss).toBeLessThan(HOST_GROWTH_MAX)
    release()
    expect((await handle.wait()).exitCode).toBe(0)
    expect(total).toBe(FLOOD_BYTES)
    expect(peakRss - startRss).toBeLessThan(HOST_GROWTH_MAX)
  })

  it('a reader that throws ends the command', async () => {
    const handle = await sandbox.exec(
      { argv: ['yes'], env: { PATH } },
      { onOutput: () => { throw new Error('enough') } },
      { signal: never() },
    )
    const end = await within(bench().ms(10_000), 'the end', handle.wait().then((exit) => exit.signal, () => 'rejected'))
    expect(['rejected', 'SIGKILL', 'SIGPIPE']).toContain(end)
  })

  it('a background child that keeps the output open does not hold up the end', async () => {
    const fresh = await bench().sandbox()
    const started = await bench().start(fresh, 'setsid sleep 1000 & echo parent; exit 4')
    const exit = await within(bench().ms(10_000), 'the end of the parent', started.handle.wait())
    expect(exit.exitCode).toBe(4)
    expect(started.out()).toBe('parent\n')
    await fresh[Symbol.asyncDispose]()
  })

  it('nothing of a large output is lost when the command ends at once', async () => {
    for (let i = 0; i < 5; i++) expect((await run(sandbox, 'head -c 300000 /dev/zero; echo tail >&2')).stdout).toHaveLength(300_000)
  })
}

export function terminalTests(bench: () => Bench): void {
  const tty = { cols: 80, rows: 24 }

  it('without the feature a terminal is refused as unsupported; with it there is one of the given size', async () => {
    const sandbox = await bench().sandbox()
    if (!bench().driver.features.tty) {
      await expect(bench().start(sandbox, 'tty', { tty })).rejects.toMatchObject({ code: 'runtime/unsupported' })
      return
    }
    expect((await bench().run(sandbox, 'test -t 0 && test -t 1 && stty size', { tty })).out).toBe('24 80\r\n')
    expect((await bench().run(sandbox, 'test -t 0 || echo none')).out).toBe('none\n')
  })

  it('a resize reaches the guest', async () => {
    if (!bench().driver.features.tty) return bench().lacks('tty')
    const { handle, out } = await bench().start(await bench().sandbox(), 'echo ready; read line; stty size', { tty, stdin: 'pipe' })
    await eventually(() => out().includes('ready'))
    await handle.resize(132, 50)
    await handle.writeStdin(utf8('\n'))
    await handle.wait()
    expect(out()).toContain('50 132')
  })

  it('a resize signals the foreground program', async () => {
    if (!bench().driver.features.tty) return bench().lacks('tty')
    const { handle, out } = await bench().start(await bench().sandbox(), "trap 'echo changed' WINCH; echo ready; while :; do sleep 0.05; done", { tty })
    await eventually(() => out().includes('ready'))
    await handle.resize(100, 30)
    await eventually(() => out().includes('changed'), { what: 'SIGWINCH' })
    await handle.kill('SIGKILL')
    await handle.wait()
  })

  it('ctrl-C interrupts the command, and typed text is echoed', async () => {
    if (!bench().driver.features.tty) return bench().lacks('tty')
    const { handle, out } = await bench().start(await bench().sandbox(), 'echo ready; read line; echo "<$line>"; sleep 1000', { tty, stdin: 'pipe' })
    await eventually(() => out().includes('ready'))
    await handle.writeStdin(utf8('typed\n'))
    await eventually(() => out().includes('<typed>'))
    expect(out()).toContain('typed\r\n')
    await handle.writeStdin(Uint8Array.of(3))
    const exit = await within(bench().ms(10_000), 'the interrupt', handle.wait())
    expect(exit.signal === 'SIGINT' || exit.exitCode === 130).toBe(true)
  })
}
