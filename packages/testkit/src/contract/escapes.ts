/** Contract: named escape attempts. Each is tried as root of the sandbox; a success on the host's side fails the test. */
import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Sandbox } from '@faas-platform/core'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { packTarStream } from '../tar.js'
import { never, type Bench } from './bench.js'
import { ESCAPE_ATTEMPTS } from './escape-list.js'
import { buildEscapeProbe, listAttempts } from './escape-probe.js'

const MARKER = 'faas-host-marker: only the host has this file\n'
const CANARIES = ['/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/kernel/hostname', '/proc/sys/kernel/panic', '/proc/sys/vm/overcommit_memory', '/proc/swaps', '/proc/modules']

export function escapeTests(bench: () => Bench): void {
  let probe = ''
  let dir = ''
  let sandbox: Sandbox
  const servers: Server[] = []
  const args: string[] = []

  beforeAll(async () => {
    probe = await buildEscapeProbe()
    dir = await mkdtemp(join(tmpdir(), 'faas-marker-'))
    await writeFile(join(dir, 'marker'), MARKER)
    const abstract = `faas-escape-${process.pid}-${Date.now()}`
    const port = await listen(servers, { host: '127.0.0.1', port: 0 })
    await listen(servers, { path: `\0${abstract}` })
    args.push(join(dir, 'marker'), String(port), abstract)
    sandbox = await withProbe(bench, probe)
  }, 180_000)
  afterAll(async () => {
    for (const server of servers) await new Promise((resolve) => server.close(resolve))
    await rm(dir, { recursive: true, force: true })
  })

  it('the list of attempts and the probe agree, and there are enough of them', async () => {
    expect((await listAttempts(probe)).sort()).toEqual(Object.keys(ESCAPE_ATTEMPTS).sort())
    expect(Object.keys(ESCAPE_ATTEMPTS).length).toBeGreaterThanOrEqual(20)
  })

  it.each(Object.entries(ESCAPE_ATTEMPTS))('%s is refused', async (name, kind) => {
    const before = canaries()
    const { out, err, exit } = await bench().run(sandbox, ['/probe/escape', name, ...args])
    expect(canaries()).toEqual(before)
    expect(await readFile(join(dir, 'marker'), 'utf8')).toBe(MARKER)
    const ownKernel = bench().driver.features.isolation !== 'process'
    if (kind === 'guest' && ownKernel) {
      // Done to the guest's own kernel at most; a probe that its kernel killed was refused too.
      expect(out === '' ? (exit.signal ?? exit.exitCode) : out.split(':')[0], err).toMatch(/^(refused|succeeded|SIG\w+)$/)
      return
    }
    expect(out, err).toMatch(/^refused: /)
  })

  it('no attempt succeeds for an ordinary user either', async () => {
    const succeeded: string[] = []
    for (const [name, kind] of Object.entries(ESCAPE_ATTEMPTS)) {
      if (kind === 'guest' && bench().driver.features.isolation !== 'process') continue
      const { out } = await bench().run(sandbox, ['/probe/escape', name, ...args], { user: '1000:1000' })
      if (!out.startsWith('refused: ')) succeeded.push(`${name}: ${out}`)
    }
    expect(succeeded).toEqual([])
  })

  it('a working directory that is a descriptor of the runtime never leads out (CVE-2024-21626)', async () => {
    const up = `../../../../../../../..${join(dir, 'marker')}`
    for (let fd = 3; fd < 24; fd++) {
      for (const path of [`/proc/self/fd/${fd}`, `/proc/self/fd/${fd}/../../..`, `/proc/1/fd/${fd}`]) {
        const out = await bench().run(sandbox, ['/bin/sh', '-c', `cat ${up} 2>/dev/null; true`], { cwd: path }).then((result) => result.out, (error: unknown) => (error as { code: string }).code)
        expect(['', 'execution/spawn-failed']).toContain(out)
      }
    }
  })

  it('after all attempts the sandbox still works and the host has its name', async () => {
    const name = hostname()
    expect((await bench().run(sandbox, 'echo fine')).out).toBe('fine\n')
    expect(hostname()).toBe(name)
  })
}

async function withProbe(bench: () => Bench, path: string): Promise<Sandbox> {
  const sandbox = await bench().sandbox()
  await sandbox.copyIn('/probe', packTarStream([{ path: 'escape', type: 'file', mode: 0o755, data: await readFile(path) }]), { signal: never() })
  return sandbox
}

function canaries(): Record<string, string> {
  return Object.fromEntries(CANARIES.map((path) => [path, existsSync(path) ? readFileSync(path, 'utf8') : 'absent']))
}

async function listen(servers: Server[], where: { host: string; port: number } | { path: string }): Promise<number> {
  const server = createServer((socket) => {
    socket.on('error', () => socket.destroy())
    socket.end('host\n')
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(where, resolve)
  })
  servers.push(server)
  const address = server.address()
  return address !== null && typeof address === 'object' ? address.port : 0
}
