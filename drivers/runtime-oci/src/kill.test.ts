/** The owner is killed at random moments while it makes and frees sandboxes; its successor leaves nothing. */
import { spawn } from 'node:child_process'
import { chmodSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { dataDirId } from '@faas-platform/host'
import { eventually, leakCounter } from '@faas-platform/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { makeParts, toolPath } from './testing/make-driver.js'

const KILLS = Number(process.env.FAAS_TEST_KILLS ?? 6)
const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const never = new AbortController().signal

describe.each(['runc', 'crun', 'gvisor'] as const)('a killed owner of %s', (name) => {
  const root = mkdtempSync(join(tmpdir(), `faas-kill-${name}-`))
  chmodSync(root, 0o711)
  const rootfs = join(root, 'rootfs')
  const dataDir = join(root, 'data')
  mkdirSync(join(rootfs, 'bin'), { recursive: true })
  mkdirSync(dataDir, { mode: 0o711 })
  copyFileSync(join(dirname(toolPath('runc')), 'busybox'), join(rootfs, 'bin/busybox'))
  for (const applet of ['sh', 'sleep']) symlinkSync('busybox', join(rootfs, 'bin', applet))
  afterAll(() => rmSync(root, { recursive: true, force: true }))

  const owner = dataDirId(dataDir)
  const count = leakCounter({ dataDir, hostPrefix: `faas-${owner}` })
  const links = (): string[] => readdirSync('/sys/class/net').filter((link) => link.startsWith(`f${owner.slice(0, 6)}-`))

  it(`leaves nothing after reclaim, at ${KILLS} random moments`, async () => {
    const clean = { ...count(), fds: 0 }
    for (let kill = 0; kill < KILLS; kill++) {
      await churnAndKill(Math.random() * 400)
      const { driver, egress, hostkit } = makeParts(name, dataDir)
      await driver.reclaim(new Set(), never)
      expect(await driver.list(never)).toEqual([])
      await eventually(() => links().length === 0, { deadlineMs: 10_000, what: 'the cables to go' })
      expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(dataDir)
      const again = await driver.reclaim(new Set(), never)
      expect(Object.values(again).reduce((sum: number, n: number) => sum + n, 0)).toBe(0)
      await driver[Symbol.asyncDispose]()
      await egress[Symbol.asyncDispose]()
      await hostkit[Symbol.asyncDispose]()
      // The helper itself was a process of this data directory until now; the host's init reaps the orphans.
      await eventually(() => isDeepStrictEqual({ ...count(), fds: 0 }, clean), { deadlineMs: 10_000, what: `nothing to be left: ${JSON.stringify(count())}` })
    }
  }, 60_000 + KILLS * 20_000)

  async function churnAndKill(afterMs: number): Promise<void> {
    const viteNode = join(ROOT, 'node_modules/vite-node/vite-node.mjs')
    expect(existsSync(viteNode)).toBe(true)
    const script = fileURLToPath(new URL('./testing/churn.ts', import.meta.url))
    const child = spawn(process.execPath, [viteNode, '--config', join(ROOT, 'vitest.config.ts'), '--root', ROOT, script, name, dataDir, rootfs], { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] })
    let out = ''
    let err = ''
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
    const closed = new Promise((resolve) => child.once('close', resolve))
    try {
      await eventually(() => {
        if (child.exitCode !== null) throw new Error(`The child ended: ${err}`)
        return out.includes('ROUND')
      }, { deadlineMs: 30_000, what: 'the first round' })
      await new Promise((resolve) => setTimeout(resolve, afterMs))
      expect(child.exitCode, err).toBe(null)
    } finally {
      child.kill('SIGKILL')
      await closed
    }
  }
})
