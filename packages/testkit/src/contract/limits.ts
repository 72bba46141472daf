/** Contract: limits hold against a hostile guest, and numbers are plausible. */
import { MIB, type FaasError } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { eventually, within } from '../eventually.js'
import { never, type Bench } from './bench.js'

/** A refused write may overshoot by what is checked at once. */
const DISK_OVERSHOOT = 16 * MIB

export function limitTests(bench: () => Bench, isolates: boolean): void {
  const limits = (changes: object) => ({ limits: { ...bench().spec().limits, ...changes } })

  it('the process limit ends a fork loop, and the sandbox can be disposed of', async () => {
    const sandbox = await bench().sandbox(limits({ pidsMax: 40 }))
    const loop = bench().run(sandbox, 'while :; do sleep 1000 & done 2>/dev/null').then(({ exit }) => exit.exitCode, () => 'rejected')
    const code = await within(bench().ms(20_000), 'the fork loop to be refused', loop)
    expect(code).not.toBe(0)
    // Where the guest has a kernel of its own, the limit may take that kernel down with it.
    if (bench().driver.features.isolation === 'process' || !isolates) expect((await sandbox.stats()).pids).toBeLessThanOrEqual(41)
    await within(bench().ms(15_000), 'dispose', sandbox[Symbol.asyncDispose]())
    expect(await bench().driver.list(never())).not.toContain(sandbox.id)
  })

  if (isolates) it('a fork bomb is bounded and disposed of within its deadline', async () => {
    const sandbox = await bench().sandbox(limits({ pidsMax: 64 }))
    const neighbour = await bench().sandbox()
    const bomb = await bench().start(sandbox, 'b() { b | b & }; b; sleep 1000')
    bomb.handle.wait().catch(() => undefined)
    await eventually(async () => (await sandbox.stats()).pids > 20, { what: 'the bomb to go off', deadlineMs: bench().ms(10_000) })
    expect((await sandbox.stats()).pids).toBeLessThanOrEqual(65)
    expect((await within(bench().ms(20_000), 'the neighbour', bench().run(neighbour, 'echo fine'))).out).toBe('fine\n')
    await within(bench().ms(20_000), 'dispose', sandbox[Symbol.asyncDispose]())
  })

  it('a memory bomb is ended as out of memory, and others are not touched', async () => {
    const sandbox = await bench().sandbox(limits({ memoryBytes: 64 * MIB }))
    const neighbour = await bench().sandbox()
    const end = await within(bench().ms(60_000), 'the bomb', bench().run(sandbox, bench().memoryHog(512)).then(({ exit }) => exit, (error: unknown) => error as FaasError))
    if ('code' in end) {
      expect(end.code).toBe('sandbox/oom')
      expect(await within(bench().ms(5_000), 'exited', sandbox.exited)).toMatchObject({ reason: 'oom' })
    } else {
      expect(end).toMatchObject({ oomKilled: true, signal: 'SIGKILL' })
      expect((await sandbox.stats()).oomKills).toBeGreaterThan(0)
      // A child was the victim: the agent lives and takes the next command.
      expect((await bench().run(sandbox, 'echo survived')).out).toBe('survived\n')
    }
    expect((await bench().run(neighbour, 'echo fine')).out).toBe('fine\n')
  })

  it('a victim inside a pipeline is told as out of memory too', async () => {
    const sandbox = await bench().sandbox(limits({ memoryBytes: 64 * MIB }))
    const hog = bench().memoryHog(512).map((arg) => `'${arg}'`).join(' ')
    const end = await within(bench().ms(60_000), 'the bomb', bench().run(sandbox, `${hog}; echo "after: $?"`).then((result) => result, (error: unknown) => error as FaasError))
    if ('code' in end) expect(end.code).toBe('sandbox/oom')
    else expect(end).toMatchObject({ out: 'after: 137\n', exit: { oomKilled: true, exitCode: 0 } })
  })

  it('what fits into the memory limit runs, and the peak shows it', async () => {
    const sandbox = await bench().sandbox(limits({ memoryBytes: 192 * MIB }))
    const { out, exit } = await bench().run(sandbox, bench().memoryHog(48))
    expect(out).toBe('touched\n')
    expect(exit.oomKilled).toBe(false)
    expect((await sandbox.stats()).memoryPeakBytes).toBeGreaterThanOrEqual(48 * MIB)
    expect(exit.usage.maxRssBytes).toBeGreaterThanOrEqual(40 * MIB)
  })

  it('a disk filler is refused or at least seen', async () => {
    const sandbox = await bench().sandbox(limits({ writableBytesMax: 16 * MIB }))
    const fill = 'dd if=/dev/zero of=/var/fill bs=1M count=128 2>/dev/null || dd if=/dev/zero of=/fill bs=1M count=128 2>/dev/null'
    const end = await within(bench().ms(60_000), 'the filler', bench().run(sandbox, fill).then(({ exit }) => exit, (error: unknown) => error as FaasError))
    if ('code' in end) {
      // The driver has a guard of its own and ended the sandbox.
      expect(end.code).toBe('execution/disk-limit')
      expect(await within(bench().ms(5_000), 'exited', sandbox.exited)).toMatchObject({ reason: 'disk_limit' })
      return
    }
    const { writableBytes } = await sandbox.stats()
    if (end.exitCode === 0) expect(writableBytes, 'the limit was passed and the runtime can not tell').toBeGreaterThan(16 * MIB)
    else expect(writableBytes ?? 0).toBeLessThanOrEqual(16 * MIB + DISK_OVERSHOOT)
  })

  if (isolates) it('the processor limit slows a burning command', async () => {
    const sandbox = await bench().sandbox(limits({ cpuCores: 0.25 }))
    const before = await sandbox.stats()
    const started = performance.now()
    await bench().run(sandbox, 'timeout 3 sh -c "while :; do :; done"')
    const wallMs = performance.now() - started
    const burnt = (await sandbox.stats()).cpuMs - before.cpuMs
    expect(burnt / wallMs).toBeLessThan(0.4)
    expect(burnt).toBeGreaterThan(200)
  })

  it('processor time grows while a command burns and stands when none runs', async () => {
    const sandbox = await bench().sandbox()
    const before = (await sandbox.stats()).cpuMs
    const { handle } = await bench().start(sandbox, 'while :; do :; done')
    await eventually(async () => (await sandbox.stats()).cpuMs > before + 100, { what: '100 ms of processor time', deadlineMs: bench().ms(10_000) })
    await handle.kill('SIGKILL')
    await handle.wait()
    const idle = (await sandbox.stats()).cpuMs
    await bench().run(sandbox, 'sleep 0.5')
    expect((await sandbox.stats()).cpuMs - idle).toBeLessThan(400)
  })

  it('the writable bytes follow what is written, where the runtime can tell', async () => {
    const sandbox = await bench().sandbox()
    const before = (await sandbox.stats()).writableBytes
    await bench().run(sandbox, 'dd if=/dev/zero of=/var/eight bs=1M count=8 2>/dev/null || dd if=/dev/zero of=/eight bs=1M count=8; sync')
    const after = (await sandbox.stats()).writableBytes
    if (before !== null && after !== null) expect(after - before).toBeGreaterThanOrEqual(8 * MIB)
    else expect(after).toBeNull()
  })

  it('limits of a live sandbox change where the feature says so, else the change is refused', async () => {
    const sandbox = await bench().sandbox(limits({ memoryBytes: 64 * MIB }))
    const wider = { ...sandbox.spec.limits, memoryBytes: 256 * MIB }
    if (!bench().driver.features.resizeLimits) {
      await expect(sandbox.updateLimits(wider)).rejects.toMatchObject({ code: 'runtime/unsupported' })
      return
    }
    await sandbox.updateLimits(wider)
    const { out, exit } = await bench().run(sandbox, bench().memoryHog(100))
    expect([out, exit.oomKilled]).toEqual(['touched\n', false])
  })
}

export function pauseTests(bench: () => Bench): void {
  it('a paused sandbox makes no progress and goes on when resumed; without the feature it is refused', async () => {
    const sandbox = await bench().sandbox()
    if (!bench().driver.features.pause) {
      await expect(sandbox.pause()).rejects.toMatchObject({ code: 'runtime/unsupported' })
      return
    }
    const { handle, out } = await bench().start(sandbox, 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done')
    await eventually(() => out().split('\n').length > 5)
    await sandbox.pause()
    await quiet(out)
    const frozen = out()
    const neighbour = await bench().sandbox()
    await bench().run(neighbour, 'sleep 0.5')
    expect(out()).toBe(frozen)
    await sandbox.resume()
    await eventually(() => out().length > frozen.length + 10, { what: 'progress after resume' })
    await handle.kill('SIGKILL')
    await handle.wait()
  })

  it('a paused sandbox can be disposed of', async () => {
    if (!bench().driver.features.pause) return bench().lacks('pause')
    const sandbox = await bench().sandbox()
    await bench().start(sandbox, 'sleep 1000').then(({ handle }) => void handle.wait().catch(() => undefined))
    await sandbox.pause()
    await within(bench().ms(15_000), 'dispose', sandbox[Symbol.asyncDispose]())
    expect(await bench().driver.list(never())).not.toContain(sandbox.id)
  })

  it('pausing and resuming twice is harmless', async () => {
    if (!bench().driver.features.pause) return bench().lacks('pause')
    const sandbox = await bench().sandbox()
    await sandbox.pause()
    await sandbox.pause()
    await sandbox.resume()
    await sandbox.resume()
    expect((await bench().run(sandbox, 'echo on')).out).toBe('on\n')
  })
}

/** Output that was on its way when the freezer closed still arrives; wait until it has. */
async function quiet(out: () => string): Promise<void> {
  let last = -1
  await eventually(() => {
    const stands = out().length === last
    last = out().length
    return stands
  }, { everyMs: 100 })
}
