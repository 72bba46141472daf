/** Images and guests that try to lead the host astray, on every runtime of this driver. */
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { asId, MIB, type Sandbox, type SandboxId } from '@faas-platform/core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectAgent } from './connect.js'
import { BARE_IMAGE, bareImages } from './testing/bare-images.js'
import { makeParts, toolPath, type TestDriver } from './testing/make-driver.js'

const never = new AbortController().signal
let count = 0

async function run(sandbox: Sandbox, script: string): Promise<string> {
  const parts: Buffer[] = []
  const handle = await sandbox.exec({ argv: ['/bin/sh', '-c', script], env: { PATH: '/bin' } }, { onOutput: (_, bytes) => void parts.push(Buffer.from(bytes)) }, { signal: never })
  await handle.wait()
  return Buffer.concat(parts).toString()
}

describe.each(['runc', 'crun', 'gvisor'] as const)('against %s', (name) => {
  const root = mkdtempSync(join(tmpdir(), `faas-hostile-${name}-`))
  const outside = join(root, 'outside')
  const image = join(root, 'image')
  let parts: TestDriver

  beforeAll(() => {
    chmodSync(root, 0o711)
    mkdirSync(outside)
    writeFileSync(join(outside, 'secret'), 'of the host')
    mkdirSync(join(image, 'bin'), { recursive: true })
    copyFileSync(join(dirname(toolPath('runc')), 'busybox'), join(image, 'bin/busybox'))
    for (const applet of ['sh', 'cat', 'ls', 'mv', 'ln', 'mkdir', 'mount', 'head', 'echo', 'stat', 'readlink']) symlinkSync('busybox', join(image, 'bin', applet))
    // Everything that the runtime or the platform touches leads somewhere else.
    symlinkSync(outside, join(image, 'proc'))
    symlinkSync('../../../../../../..' + outside, join(image, 'dev'))
    writeFileSync(join(image, 'sys'), 'a file')
    symlinkSync(outside, join(image, 'etc'))
    symlinkSync(outside, join(image, 'tmp'))
    symlinkSync(outside, join(image, '.faas'))
    parts = makeParts(name, join(root, 'data'), { images: bareImages([image]) })
  })
  afterAll(async () => {
    await parts.driver[Symbol.asyncDispose]()
    await parts.egress[Symbol.asyncDispose]()
    await parts.hostkit[Symbol.asyncDispose]()
    rmSync(root, { recursive: true, force: true })
  })

  const make = (): Promise<Sandbox> =>
    parts.driver.create(
      {
        id: asId<SandboxId>(`hostile-${count++}`), image: BARE_IMAGE, hostname: 'hostile', labels: {}, network: { mode: 'none', allowCidrs: [] },
        limits: { memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB },
      },
      { signal: never },
    )

  it('an image whose /proc, /dev, /sys, /etc, /tmp and /.faas lead elsewhere gets real ones', async () => {
    const sandbox = await make()
    expect(await run(sandbox, 'cat /proc/1/cmdline | head -c 12')).toBe('/.faas/agent')
    expect(await run(sandbox, 'echo x > /dev/null; ls /dev')).toContain('urandom')
    expect(await run(sandbox, 'ls /sys')).toContain('kernel')
    expect(await run(sandbox, 'cat /etc/hostname')).toBe('hostile\n')
    expect(await run(sandbox, 'cat /tmp/secret /etc/secret /proc/secret 2>&1')).not.toContain('of the host')
    await sandbox[Symbol.asyncDispose]()
    expect(readdirSync(outside)).toEqual(['secret'])
  })

  it('what the image has at the agent\'s place does not show', async () => {
    const layer = join(root, 'planted')
    mkdirSync(join(layer, '.faas'), { recursive: true })
    writeFileSync(join(layer, '.faas/agent'), '#!/bin/sh\nexit 7\n', { mode: 0o755 })
    writeFileSync(join(layer, '.faas/planted'), 'x')
    const planted = makeParts(name, join(root, 'data2'), { images: bareImages([layer, image]) })
    try {
      const sandbox = await planted.driver.create(
        {
          id: asId<SandboxId>('planted'), image: BARE_IMAGE, hostname: 'planted', labels: {}, network: { mode: 'none', allowCidrs: [] },
          limits: { memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB },
        },
        { signal: never },
      )
      expect(await run(sandbox, 'ls -A /.faas')).not.toContain('planted')
      await sandbox[Symbol.asyncDispose]()
    } finally {
      await planted.driver[Symbol.asyncDispose]()
      await planted.hostkit[Symbol.asyncDispose]()
    }
  })

  it('a guest that overwrites the agent and its directory harms itself only', async () => {
    const first = await make()
    // Where the running file can be overwritten (gVisor), the command dies with its agent.
    await run(first, 'echo broken > /.faas/agent; echo broken > /bin/busybox.new; mv /bin/busybox.new /bin/busybox').catch((error: unknown) => expect(error).toMatchObject({ code: 'sandbox/lost' }))
    const second = await make()
    expect(await run(second, 'echo fine')).toBe('fine\n')
    await first[Symbol.asyncDispose]()
    await second[Symbol.asyncDispose]()
  })

  it('descriptors of the host are not in reach of the first process or of a command', async () => {
    const sandbox = await make()
    const links = await run(sandbox, 'for p in 1 self; do for f in /proc/$p/fd/*; do readlink $f; done; done 2>/dev/null; readlink /proc/1/cwd; readlink /proc/1/root')
    expect(links).not.toContain(root)
    expect(links).not.toMatch(/cgroup|hostkit|runtime\.log|sandboxes/)
    await sandbox[Symbol.asyncDispose]()
  })

  // gVisor's agent speaks over pipes that the host holds; there is no name to replace.
  if (name !== 'gvisor') it('a guest that puts a link where its agent listens is not followed', async () => {
    const sandbox = await make()
    const pid = Number(readFileSync(join(root, 'data/sandboxes', `${name}-${sandbox.id}`, 'pid'), 'utf8'))
    await (await connectAgent(pid, {})).close()
    await run(sandbox, `mv /.faas /gone; ln -s ${outside} /.faas`)
    await expect(connectAgent(pid, {})).rejects.toMatchObject({ code: expect.stringMatching(/^(ENOTDIR|ELOOP)$/) as string })
    await run(sandbox, 'mkdir /real; ln -s /run/some.sock /real/agent.sock; mv /.faas /gone2; mv /real /.faas')
    await expect(connectAgent(pid, {})).rejects.toMatchObject({ code: 'agent/protocol-error' })
    await sandbox[Symbol.asyncDispose]()
  })

  it('directories deeper than any path and names of odd bytes are removed with the sandbox', async () => {
    const sandbox = await make()
    await run(sandbox, 'cd /; i=0; while [ $i -lt 600 ]; do mkdir dddddddddd && cd dddddddddd || break; i=$((i+1)); done; mkdir "/a b\n*$(echo -e \'\\x01\\xff\')"')
    await sandbox[Symbol.asyncDispose]()
    expect(existsSync(join(root, 'data/sandboxes', `${name}-${sandbox.id}`))).toBe(false)
  })
})
