/** Contract: signals, cancellation, and processes that try to outlive their command. */
import type { Sandbox } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { eventually, within } from '../eventually.js'
import { never, type Bench } from './bench.js'

export function signalTests(bench: () => Bench, isolates: boolean): void {
  const pidsOf = (sandbox: Sandbox): Promise<number> => bench().guestProcesses(sandbox)
  const settled = async (sandbox: Sandbox, base: number): Promise<void> => {
    await eventually(async () => (await pidsOf(sandbox)) <= base, { what: `back to ${base} processes`, deadlineMs: bench().ms(10_000) })
  }

  it('a signal goes to the whole process group', async () => {
    const sandbox = await bench().sandbox()
    const base = await pidsOf(sandbox)
    const { handle, out } = await bench().start(sandbox, 'sleep 1000 & (sleep 1000 & sleep 1000) & echo ready; wait')
    await eventually(() => out().includes('ready'))
    await handle.kill('SIGTERM')
    expect(await within(bench().ms(10_000), 'the end', handle.wait())).toMatchObject({ exitCode: null, signal: 'SIGTERM' })
    await settled(sandbox, base)
  })

  it('a command that ignores SIGTERM goes on until SIGKILL', async () => {
    const sandbox = await bench().sandbox()
    const { handle, out } = await bench().start(sandbox, "trap '' TERM; echo ready; while :; do echo alive; sleep 0.05; done")
    await eventually(() => out().includes('alive'))
    await handle.kill('SIGTERM')
    const after = out().length
    await eventually(() => out().length > after + 12, { what: 'output after SIGTERM' })
    await handle.kill('SIGKILL')
    expect(await within(bench().ms(10_000), 'the end', handle.wait())).toMatchObject({ exitCode: null, signal: 'SIGKILL' })
  })

  it('a handled signal lets the command end in its own way', async () => {
    const sandbox = await bench().sandbox()
    const { handle, out } = await bench().start(sandbox, "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    await eventually(() => out().includes('ready'))
    await handle.kill('SIGTERM')
    expect((await handle.wait()).exitCode).toBe(9)
    expect(out()).toBe('ready\nbye\n')
  })

  it('a signal to a command that has ended is harmless', async () => {
    const sandbox = await bench().sandbox()
    const { handle } = await bench().start(sandbox, 'exit 0')
    await handle.wait()
    await handle.kill('SIGKILL').catch((error: unknown) => expect(error).toMatchObject({ code: 'execution/not-running' }))
    expect((await bench().run(sandbox, 'echo on')).out).toBe('on\n')
  })

  it('an aborted signal kills the process group and rejects the wait', async () => {
    const sandbox = await bench().sandbox()
    const base = await pidsOf(sandbox)
    const stop = new AbortController()
    const { handle, out } = await bench().start(sandbox, "trap '' TERM INT HUP; sleep 1000 & sleep 1000 & echo ready; wait", { signal: stop.signal })
    await eventually(() => out().includes('ready'))
    stop.abort()
    await expect(within(bench().ms(10_000), 'the wait to reject', handle.wait())).rejects.toMatchObject({ code: 'execution/cancelled' })
    await settled(sandbox, base)
    expect((await bench().run(sandbox, 'echo on')).out).toBe('on\n')
  })

  it('a command is not started with a signal that is aborted already', async () => {
    const sandbox = await bench().sandbox()
    await expect(bench().run(sandbox, 'echo no > /tmp/ran', { signal: AbortSignal.abort() })).rejects.toThrow()
    expect((await bench().run(sandbox, 'test -e /tmp/ran')).exit.exitCode).toBe(1)
  })

  it('daemonised children end with the sandbox', async () => {
    const before = bench().countHost()
    const sandbox = await bench().sandbox()
    await bench().run(sandbox, 'setsid sh -c "trap \\"\\" TERM HUP; (sleep 4711 >/dev/null 2>&1 & ) ; sleep 4711" >/dev/null 2>&1 & (setsid sleep 4711 >/dev/null 2>&1 &) ; exit 0')
    await within(bench().ms(10_000), 'dispose', sandbox[Symbol.asyncDispose]())
    await eventually(() => bench().countHost().processes <= before.processes, { what: 'no process left on the host' })
  })

  it('orphans are reaped: no zombie stays', async () => {
    const sandbox = await bench().sandbox()
    const base = await pidsOf(sandbox)
    await bench().run(sandbox, 'i=0; while [ $i -lt 40 ]; do (sleep 0.01 &) ; i=$((i+1)); done')
    await settled(sandbox, base)
    if (isolates) expect((await bench().run(sandbox, "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || true")).out.trim()).toBe('0')
  })

  if (isolates) it('a sandbox whose agent dies is lost: exited settles and the running command rejects', async () => {
    const sandbox = await bench().sandbox()
    const { handle } = await bench().start(sandbox, 'sleep 1000')
    const ended = handle.wait().then(() => 'resolved', () => 'rejected')
    // Process 1 is the agent; the kernel shields it from signals of its own namespace, so this may be refused. Then it must live on.
    await bench().run(sandbox, 'kill -KILL 1').catch(() => undefined)
    const alive = await bench().run(sandbox, 'echo alive').then(({ out }) => out === 'alive\n', () => false)
    if (alive) {
      await handle.kill('SIGKILL')
      expect(await ended).toBe('resolved')
    } else {
      expect(await within(bench().ms(10_000), 'the wait', ended)).toBe('rejected')
      expect((await within(bench().ms(10_000), 'exited', sandbox.exited)).reason).not.toBe('destroyed')
    }
    await sandbox[Symbol.asyncDispose]()
    expect(await bench().driver.list(never())).not.toContain(sandbox.id)
  })
}
