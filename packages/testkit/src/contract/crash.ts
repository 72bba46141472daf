/** Contract: nothing leaks, neither over many lives nor when the owner is killed. */
import { spawn } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { asId, type RuntimeDriver, type SandboxId } from '@faas-platform/core'
import { expect, it } from 'vitest'
import { eventually, within } from '../eventually.js'
import { leakCounter, leaked } from '../leak-counter.js'
import { hostPrefixOf, importImage, makeDataDir, never, repositoryRoot, specOf, type Bench, type ContractOptions } from './bench.js'

const ABANDONED = 3

export function leakTests(bench: () => Bench): void {
  const cycles = (): number => bench().options.cycles ?? 100

  it('many lives leave nothing on the host: files, mounts, cgroups, namespaces, processes, directories', async () => {
    const live = async (): Promise<void> => {
      const sandbox = await bench().sandbox()
      expect((await bench().run(sandbox, 'echo x > /tmp/x; echo done')).out).toBe('done\n')
      await sandbox[Symbol.asyncDispose]()
    }
    await live()
    await live()
    const before = bench().countHost()
    for (let i = 0; i < cycles(); i++) await live()
    await eventually(() => Object.keys(leaked(before, bench().countHost())).length === 0, { what: `no leak: ${JSON.stringify(leaked(before, bench().countHost()))}`, deadlineMs: bench().ms(5_000) })
    expect(leaked(before, bench().countHost())).toEqual({})
    expect(await bench().driver.list(never())).toEqual([])
  }, 240_000)

  it('twelve sandboxes made at once all work and all go', async () => {
    const before = bench().countHost()
    const sandboxes = await Promise.all(Array.from({ length: 12 }, () => bench().sandbox()))
    const outs = await Promise.all(sandboxes.map((sandbox, i) => bench().run(sandbox, `echo ${i}`)))
    expect(outs.map(({ out }) => out)).toEqual(outs.map((_, i) => `${i}\n`))
    await Promise.all(sandboxes.map((sandbox) => sandbox[Symbol.asyncDispose]()))
    expect(leaked(before, bench().countHost())).toEqual({})
  })
}

export function crashTests(options: ContractOptions): void {
  it('what a killed owner leaves is reclaimed to zero by its successor, and counted', async () => {
    const dataDir = await makeDataDir('crash', options)
    const count = leakCounter({ dataDir, hostPrefix: hostPrefixOf(options, dataDir) })
    let successor: RuntimeDriver | undefined
    try {
      // What a driver that ended well leaves (locks, images) is no leak.
      await (await options.makeDriver(dataDir))[Symbol.asyncDispose]()
      const before = count()
      const abandoned = await abandon(options, dataDir)
      successor = abandoned.successor
      expect([...(await successor.list(never()))].sort()).toEqual([...abandoned.ids].sort())
      const report = await within(60_000 * (options.slowness ?? 1), 'reclaim', successor.reclaim(new Set(), never()))
      expect(report.sandboxes).toBe(ABANDONED)
      expect(await successor.list(never())).toEqual([])
      const again = await successor.reclaim(new Set(), never())
      expect(Object.values(again).every((n: number) => n === 0), JSON.stringify(again)).toBe(true)
      await successor[Symbol.asyncDispose]()
      successor = undefined
      await eventually(() => Object.keys(leaked(before, count(), { fds: 8 })).length === 0, { what: 'no process of the killed owner left', deadlineMs: 5_000 }).catch(() => undefined)
      expect(leaked(before, count(), { fds: 8 })).toEqual({})
    } finally {
      try {
        await successor?.[Symbol.asyncDispose]()
      } finally {
        await rm(dataDir, { recursive: true, force: true })
      }
    }
  }, 180_000)

  it('reclaim spares what it is told to keep and what lives in this process', async () => {
    const dataDir = await makeDataDir('keep', options)
    const driver = await options.makeDriver(dataDir)
    try {
      const image = await importImage(driver, options)
      const sandbox = await driver.create(specOf(image), { signal: never() })
      await driver.reclaim(new Set([sandbox.id]), never())
      expect(await driver.list(never())).toContain(sandbox.id)
      const parts: string[] = []
      const handle = await sandbox.exec({ argv: ['echo', 'kept'], env: { PATH: '/bin:/usr/bin' } }, { onOutput: (_, bytes) => void parts.push(Buffer.from(bytes).toString()) }, { signal: never() })
      await handle.wait()
      expect(parts.join('')).toBe('kept\n')
      await sandbox[Symbol.asyncDispose]()
    } finally {
      await driver[Symbol.asyncDispose]()
      await rm(dataDir, { recursive: true, force: true })
    }
  }, 120_000)
}

/** Makes sandboxes with a running command each in another owner, which is then killed without warning. */
async function abandon(options: ContractOptions, dataDir: string): Promise<{ ids: readonly SandboxId[]; successor: RuntimeDriver }> {
  if (options.crash !== undefined) return options.crash(dataDir, ABANDONED)
  if (options.driverModule === undefined) throw new Error('The contract needs `driverModule` (or `crash`) for its crash tests.')
  const root = repositoryRoot()
  const script = fileURLToPath(new URL('./crash-child.ts', import.meta.url))
  const layout = options.imageLayout === undefined ? 'default' : (options.imageLayout ?? 'none')
  const child = spawn(process.execPath, [
    join(root, 'node_modules/vite-node/vite-node.mjs'), '--config', join(root, 'vitest.config.ts'), '--root', root, script,
    options.driverModule, dataDir, String(ABANDONED), layout,
  ], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
  const exit = new Promise<void>((resolve) => child.once('close', () => resolve()))
  try {
    await eventually(() => {
      if (child.exitCode !== null) throw new Error(err)
      return /READY .*\n/.test(out)
    }, { deadlineMs: 60_000 * (options.slowness ?? 1), what: 'the child to make its sandboxes' })
  } catch (error) {
    throw new Error(`The crash child did not get ready: ${err}`, { cause: error })
  } finally {
    child.kill('SIGKILL')
    await exit
  }
  const ids = (/READY (.*)\n/.exec(out)?.[1] ?? '').split(' ').map((id) => asId<SandboxId>(id))
  return { ids, successor: await options.makeDriver(dataDir) }
}
