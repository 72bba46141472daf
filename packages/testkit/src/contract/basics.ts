/** Contract: probe, images, and the plain life of a sandbox. */
import { FaasError, isImageDigest } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { within } from '../eventually.js'
import { IMAGE_REFERENCE, never, type Bench } from './bench.js'

export function probeTests(bench: () => Bench): void {
  it('the probe says the runtime is usable and shows what it saw', async () => {
    const report = await bench().driver.probe(never())
    expect(report.usable, report.reason).toBe(true)
    expect(report.facts.length).toBeGreaterThan(0)
    for (const fact of report.facts) expect(fact.evidence, fact.name).not.toBe('')
  })

  it('the driver states its features as plain facts', () => {
    const { features } = bench().driver
    expect(features.network).toContain('none')
    expect(['none', 'process', 'kernel', 'emulation', 'hardware']).toContain(features.isolation)
  })
}

export function imageTests(bench: () => Bench): void {
  const resolve = (reference: string, signal = never()) => bench().driver.images.resolve(reference, { pull: 'never', signal })

  it('a tag resolves to a digest, and name@digest to the same image', async () => {
    const byTag = await resolve(IMAGE_REFERENCE)
    expect(isImageDigest(byTag.digest)).toBe(true)
    const byDigest = await resolve(`faas/base@${byTag.digest}`)
    expect(byDigest.digest).toBe(byTag.digest)
    expect(byDigest.config).toEqual(byTag.config)
  })

  it('a name without a tag means latest', async () => {
    expect((await resolve('faas/base')).digest).toBe((await resolve(IMAGE_REFERENCE)).digest)
  })

  it('an image that is not stored is not found when pulling is forbidden', async () => {
    await expect(resolve('faas/no-such-image:1.0')).rejects.toMatchObject({ code: 'image/not-found' })
  })

  it('a digest that is not stored is not found when pulling is forbidden', async () => {
    await expect(resolve(`faas/base@sha256:${'0'.repeat(64)}`)).rejects.toMatchObject({ code: 'image/not-found' })
  })

  it.each(['', 'lower/UPPER', 'a b', 'name:', 'name@sha256:xyz', '../up', 'name:tag:tag'])('the reference %j is refused as invalid', async (reference) => {
    await expect(resolve(reference)).rejects.toMatchObject({ code: 'image/invalid-reference' })
  })

  it('the list shows the stored image with its digest and size', async () => {
    const image = (await bench().driver.images.list(never())).find((one) => one.digest === bench().image.digest)
    expect(image?.sizeBytes).toBeGreaterThan(0)
  })

  it('removing an unknown reference is image/not-found', async () => {
    await expect(bench().driver.images.remove('faas/no-such-image:1.0', never())).rejects.toMatchObject({ code: 'image/not-found' })
  })

  it('an image in use can not be removed and still works afterwards', async () => {
    const sandbox = await bench().sandbox()
    await expect(bench().driver.images.remove(IMAGE_REFERENCE, never())).rejects.toMatchObject({ code: 'image/in-use' })
    expect((await bench().run(sandbox, 'echo still')).out).toBe('still\n')
    expect((await resolve(IMAGE_REFERENCE)).digest).toBe(bench().image.digest)
  })

  it('preparing an image again changes nothing', async () => {
    await bench().driver.prepareImage(bench().image, never())
    await bench().driver.prepareImage(bench().image, never())
    expect((await bench().run(await bench().sandbox(), 'echo ok')).out).toBe('ok\n')
  })
}

export function lifeTests(bench: () => Bench): void {
  it('a sandbox is listed while it lives, says where its time went, and is gone when disposed', async () => {
    const sandbox = await bench().sandbox()
    expect(await bench().driver.list(never())).toContain(sandbox.id)
    expect(Object.values(sandbox.timeBudget).every((ms) => ms >= 0)).toBe(true)
    expect(Object.keys(sandbox.timeBudget).length).toBeGreaterThan(0)
    await sandbox[Symbol.asyncDispose]()
    expect(await bench().driver.list(never())).not.toContain(sandbox.id)
    expect(await sandbox.exited).toMatchObject({ reason: 'destroyed' })
  })

  it('disposing is idempotent, also at the same time', async () => {
    const sandbox = await bench().sandbox()
    await Promise.all([sandbox[Symbol.asyncDispose](), sandbox[Symbol.asyncDispose](), sandbox[Symbol.asyncDispose]()])
    await sandbox[Symbol.asyncDispose]()
    expect(await bench().driver.list(never())).not.toContain(sandbox.id)
  })

  it('disposing ends a running command, whose wait rejects', async () => {
    const sandbox = await bench().sandbox()
    const { handle } = await bench().start(sandbox, 'sleep 1000')
    const ended = handle.wait().then(() => 'resolved', (error: unknown) => error)
    await within(bench().ms(10_000), 'dispose', sandbox[Symbol.asyncDispose]())
    const error = await within(bench().ms(5_000), 'the wait to reject', ended)
    expect(error).toBeInstanceOf(FaasError)
    expect((error as FaasError).code).toMatch(/^(sandbox\/(destroyed|lost)|agent\/disconnected)$/)
  })

  it('a destroyed sandbox refuses every call with sandbox/destroyed', async () => {
    const sandbox = await bench().sandbox()
    await sandbox[Symbol.asyncDispose]()
    const destroyed = { code: 'sandbox/destroyed' }
    await expect(bench().run(sandbox, 'echo no')).rejects.toMatchObject(destroyed)
    await expect(sandbox.stats()).rejects.toMatchObject(destroyed)
    await expect(sandbox.copyIn('/tmp', (async function* () {})(), { signal: never() })).rejects.toMatchObject(destroyed)
    if (bench().driver.features.pause) await expect(sandbox.pause()).rejects.toMatchObject(destroyed)
    if (bench().driver.features.retain) await expect(sandbox.retain()).rejects.toMatchObject(destroyed)
  })

  it('a creation that is aborted before it begins leaves nothing', async () => {
    const spec = bench().spec()
    await expect(bench().driver.create(spec, { signal: AbortSignal.abort() })).rejects.toThrow()
    expect(await bench().driver.list(never())).not.toContain(spec.id)
  })

  it('a creation that is aborted in the middle leaves nothing, at whatever point', async () => {
    const before = bench().countHost()
    const measured = await bench().sandbox()
    const totalMs = Object.values(measured.timeBudget).reduce((sum, ms) => sum + ms, 0)
    await measured[Symbol.asyncDispose]()
    for (const part of [0.1, 0.3, 0.5, 0.7, 0.9]) {
      const spec = bench().spec()
      const stop = new AbortController()
      const timer = setTimeout(() => stop.abort(), Math.max(0, totalMs * part))
      const made = await bench().driver.create(spec, { signal: stop.signal }).catch(() => undefined)
      clearTimeout(timer)
      await made?.[Symbol.asyncDispose]()
      expect(await bench().driver.list(never())).not.toContain(spec.id)
    }
    const after = bench().countHost()
    expect({ ...after, fds: 0 }).toEqual({ ...before, fds: 0 })
  })

  it('two sandboxes have their own files, processes and host names', async () => {
    const [a, b] = await Promise.all([bench().sandbox({ hostname: 'first' }), bench().sandbox({ hostname: 'second' })])
    await bench().run(a, 'echo secret > /tmp/only-in-first')
    expect((await bench().run(b, 'test -e /tmp/only-in-first')).exit.exitCode).toBe(1)
    expect((await bench().run(a, 'hostname')).out).toBe('first\n')
    expect((await bench().run(b, 'hostname')).out).toBe('second\n')
    const alone = await bench().guestProcesses(b)
    const { handle } = await bench().start(a, ['sleep', '4242'])
    expect(await bench().guestProcesses(a)).toBe(alone + 1)
    expect(await bench().guestProcesses(b)).toBe(alone)
    await handle.kill('SIGKILL')
    await handle.wait()
  })

  it('a new sandbox never sees what an earlier one of the same image wrote', async () => {
    const first = await bench().sandbox()
    await bench().run(first, 'echo x > /tmp/left; rm -f /etc/passwd; echo y > /etc/added')
    await first[Symbol.asyncDispose]()
    const second = await bench().sandbox()
    expect((await bench().run(second, 'test -e /tmp/left || test -e /etc/added; echo $?; test -e /etc/passwd; echo $?')).out).toBe('1\n0\n')
  })

  it('capability answers for every action, with a reason where it says no', async () => {
    const sandbox = await bench().sandbox()
    for (const action of ['pause', 'checkpoint', 'retain', 'copy', 'tty', 'resize-limits', 'expose'] as const) {
      const answer = await sandbox.capability(action)
      if (!answer.can) expect(answer.why, action).not.toBe('')
    }
    expect((await sandbox.capability('copy')).can).toBe(true)
    expect((await sandbox.capability('pause')).can).toBe(bench().driver.features.pause)
    expect((await sandbox.capability('retain')).can).toBe(bench().driver.features.retain)
    expect((await sandbox.capability('tty')).can).toBe(bench().driver.features.tty)
    expect((await sandbox.capability('resize-limits')).can).toBe(bench().driver.features.resizeLimits)
  })
}
