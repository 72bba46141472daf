/** What the contract suite does not ask: limits on the disk, a helper that dies, bursts, and how creation fails. */
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { asId, MIB, type Sandbox, type SandboxId, type SandboxSpec } from '@faas-platform/core'
import { eventually } from '@faas-platform/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { BARE_IMAGE, bareImages } from './testing/bare-images.js'
import { makeParts, toolPath, type TestDriver } from './testing/make-driver.js'

const never = new AbortController().signal
let count = 0

const spec = (changes: Partial<SandboxSpec['limits']> = {}): SandboxSpec => ({
  id: asId<SandboxId>(`driver-${count++}`), image: BARE_IMAGE, hostname: 'driver', labels: {}, network: { mode: 'none', allowCidrs: [] },
  limits: { memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB, ...changes },
})

async function run(sandbox: Sandbox, script: string): Promise<string> {
  const parts: Buffer[] = []
  const handle = await sandbox.exec({ argv: ['/bin/sh', '-c', script], env: { PATH: '/bin' } }, { onOutput: (_, bytes) => void parts.push(Buffer.from(bytes)) }, { signal: never })
  await handle.wait()
  return Buffer.concat(parts).toString()
}

describe.each(['runc', 'crun', 'gvisor'] as const)('the driver of %s', (name) => {
  const root = mkdtempSync(join(tmpdir(), `faas-driver-${name}-`))
  const image = join(root, 'image')
  const made = new Set<Sandbox>()
  let parts: TestDriver

  beforeAll(() => {
    chmodSync(root, 0o711)
    mkdirSync(join(image, 'bin'), { recursive: true })
    mkdirSync(join(image, 'var'))
    copyFileSync(join(dirname(toolPath('runc')), 'busybox'), join(image, 'bin/busybox'))
    for (const applet of ['sh', 'dd', 'rm', 'cat', 'sleep']) symlinkSync('busybox', join(image, 'bin', applet))
    parts = makeParts(name, join(root, 'data'), { images: bareImages([image]) })
  })
  afterEach(async () => {
    await Promise.all([...made].map((sandbox) => sandbox[Symbol.asyncDispose]()))
    made.clear()
  })
  afterAll(async () => {
    await parts.driver[Symbol.asyncDispose]()
    await parts.egress[Symbol.asyncDispose]()
    await parts.hostkit[Symbol.asyncDispose]()
    rmSync(root, { recursive: true, force: true })
  })
  const make = async (changes: Partial<SandboxSpec['limits']> = {}): Promise<Sandbox> => {
    const sandbox = await parts.driver.create(spec(changes), { signal: never })
    made.add(sandbox)
    return sandbox
  }

  it.each([
    ['a large file', 'dd if=/dev/zero of=/var/f bs=1M count=3000'],
    ['a file in /tmp', 'dd if=/dev/zero of=/tmp/f bs=1M count=3000'],
    ['a file without a name', 'exec 3>/var/f; rm /var/f; dd if=/dev/zero bs=1M count=3000 >&3'],
  ])('ends a sandbox that fills the disk with %s, and says so', async (_, script) => {
    const sandbox = await make({ writableBytesMax: 24 * MIB })
    await expect(run(sandbox, script)).rejects.toMatchObject({ code: 'execution/disk-limit' })
    expect(await sandbox.exited).toMatchObject({ reason: 'disk_limit' })
    await expect(run(sandbox, 'true')).rejects.toMatchObject({ code: 'execution/disk-limit' })
  })

  it('keeps its sandboxes when the host helper dies, and watches their disk again', async () => {
    const sandbox = await make({ writableBytesMax: 24 * MIB })
    await eventually(async () => (await parts.hostkit.call('run', 'argv=/bin/sleep\x001.1', 'timeout=5000')) !== '', { deadlineMs: 5_000 })
    const generation = parts.hostkit.generation
    process.kill(parts.hostkit.pid, 'SIGKILL')
    await eventually(() => parts.hostkit.generation > generation, { deadlineMs: 5_000, what: 'a new helper' })
    expect(await run(sandbox, 'echo still here')).toBe('still here\n')
    const other = await make()
    expect(await run(other, 'echo a new one')).toBe('a new one\n')
    await expect(run(sandbox, 'dd if=/dev/zero of=/var/f bs=1M count=3000')).rejects.toMatchObject({ code: 'execution/disk-limit' })
  })

  it('makes a burst of sandboxes, every one of them', async () => {
    const burst = name === 'gvisor' ? 10 : 40
    const sandboxes = await Promise.all(Array.from({ length: burst }, () => make()))
    expect(await Promise.all(sandboxes.map((sandbox, i) => run(sandbox, `echo ${i}`)))).toEqual(sandboxes.map((_, i) => `${i}\n`))
  }, 60_000)

  it('says what the runtime said when a sandbox can not be made, and leaves nothing', async () => {
    const broken = join(root, 'broken')
    writeFileSync(broken, '#!/bin/sh\necho nonsense >&2\nexit 3\n', { mode: 0o755 })
    const other = makeParts(name, join(root, 'data'), { images: bareImages([image]), runtimePath: broken, hostkit: parts.hostkit })
    const one = spec()
    await expect(other.driver.create(one, { signal: never })).rejects.toMatchObject({ code: 'sandbox/create-failed', message: expect.stringContaining('exited with 3') as string })
    expect(await other.driver.list(never)).not.toContain(one.id)
    expect(readdirSync(join(root, 'data/sandboxes')).filter((entry) => entry.includes(one.id))).toEqual([])
    const report = await other.driver.probe(never)
    expect(report.usable).toBe(false)
    expect(report.hint).not.toBe('')
    await other.hostkit[Symbol.asyncDispose]()
  })

  it('gives up on a runtime that hangs, and leaves nothing', async () => {
    const hanging = join(root, 'hanging')
    writeFileSync(hanging, '#!/bin/sh\nsleep 1000 & sleep 1000\n', { mode: 0o755 })
    const other = makeParts(name, join(root, 'data'), { images: bareImages([image]), runtimePath: hanging, hostkit: parts.hostkit, startTimeoutMs: 300 })
    const one = spec()
    await expect(other.driver.create(one, { signal: never })).rejects.toMatchObject({ code: 'sandbox/create-timeout', retryable: true })
    expect(existsSync(join(root, 'data/sandboxes', `${name}-${one.id}`))).toBe(false)
    await other.hostkit[Symbol.asyncDispose]()
  })

  it('refuses a second sandbox of the same id and ids that are no file names', async () => {
    const sandbox = await make()
    await expect(parts.driver.create(sandbox.spec, { signal: never })).rejects.toMatchObject({ code: 'sandbox/create-failed' })
    for (const id of ['../up', 'a/b', '', '.', 'x'.repeat(65)]) {
      await expect(parts.driver.create({ ...spec(), id: asId<SandboxId>(id) }, { signal: never })).rejects.toMatchObject({ code: 'sandbox/create-failed' })
    }
    expect(await run(sandbox, 'echo unharmed')).toBe('unharmed\n')
  })
})
