import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, readlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { ImageDigest } from '@faas-platform/core'
import { build } from 'esbuild'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { OciImageStore } from './index.js'
import { hostkitPath, image, leftovers, makeStore, never, temporaryDirectory, writeLayout } from './testing/fixtures.js'
import { startHostileRegistry, type HostileRegistry } from './testing/hostile-registry.js'

const KILLS = 25
const noise = (seed: number, length: number): Buffer => Buffer.from(Array.from({ length }, (_, i) => (i * seed) % 251))
const files = (seed: number): { name: string; data: Buffer }[] => Array.from({ length: 60 }, (_, i) => ({ name: `d${i % 7}/f${i}`, data: noise(seed + i, 30_000) }))
const shared = files(3)
const images = [image([shared, files(101)]), image([shared, files(211)])]

let work: ReturnType<typeof temporaryDirectory>
let dir: string
let worker: string

beforeAll(async () => {
  work = temporaryDirectory()
  worker = join(work.path, 'worker.mjs')
  const entry = fileURLToPath(new URL('testing/pull-worker.ts', import.meta.url))
  await build({ entryPoints: [entry], outfile: worker, bundle: true, platform: 'node', format: 'esm', conditions: ['source'], logLevel: 'error' })
})

afterAll(() => work.remove())

beforeEach(() => {
  dir = join(work.path, `store-${process.hrtime.bigint()}`)
})

/** Helper processes that work on this store. */
function helpersOf(path: string): readonly number[] {
  return readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(path) || readlinkSync(`/proc/${pid}/root`).startsWith(path)
    } catch {
      return false // it ended while we looked
    }
  })
}

async function expectConsistent(store: OciImageStore): Promise<number> {
  const stored = await store.list(never)
  for (const { reference, digest } of stored) {
    const { layerDirs, release } = await store.leaseRootfs(digest)
    const expected = images.find(({ manifestDigest }) => manifestDigest === digest)
    expect(layerDirs).toHaveLength(expected?.layers.length ?? -1)
    for (const layerDir of layerDirs) {
      const count = readdirSync(layerDir).flatMap((name) => readdirSync(join(layerDir, name))).length
      expect(count, reference).toBe(60)
    }
    await release()
  }
  return stored.length
}

describe('a store whose process is killed', () => {
  let registry: HostileRegistry

  beforeAll(async () => {
    registry = await startHostileRegistry()
    images.forEach((of, i) => registry.serve(of, `v${i}`))
  })

  afterAll(() => registry.stop())

  test(`is whole after each of ${KILLS} kills at random moments, and nothing is left over`, async () => {
    const references = images.map((_, i) => `${registry.host}/app:v${i}`)
    let midway = 0
    for (let round = 0; round < KILLS; round++) {
      const child = spawn(process.execPath, [worker, dir, hostkitPath(), ...references], { stdio: ['ignore', 'pipe', 'inherit'] })
      const exited = new Promise((resolve) => child.once('exit', resolve))
      const asked = registry.requests.length
      await expect.poll(() => registry.requests.length, { timeout: 10_000, interval: 2 }).toBeGreaterThan(asked)
      await new Promise((resolve) => setTimeout(resolve, (round * 37) % 170)) // the moment of the kill, not a wait for something
      child.kill('SIGKILL')
      await exited
      await expect.poll(() => helpersOf(dir), { timeout: 5000, interval: 10 }).toEqual([])
      if (leftovers(dir).tmp.length > 0) midway++

      const store = makeStore(dir)
      await store.prune(never)
      const count = await expectConsistent(store)
      const after = leftovers(dir)
      expect(after).toMatchObject({ tmp: [], temporaryState: [] })
      const needed = new Set(images.filter((_, i) => existsSync(join(dir, 'state.json')) && readFileSync(join(dir, 'state.json'), 'utf8').includes(`v${i}"`)).flatMap(({ layers }) => layers.map(({ diffId }) => diffId)))
      expect(after.layers).toHaveLength(count === 0 ? 0 : needed.size)
      await store.close()
      expect(readdirSync(join(dir, 'tmp'))).toEqual([])
      expect(readdirSync(join(dir, 'locks')).filter((name) => /^(tmp|blob|layer)-/.test(name))).toEqual([])
    }
    expect(midway).toBeGreaterThan(0)
    const store = makeStore(dir)
    for (const [i, reference] of references.entries()) expect((await store.resolve(reference, { pull: 'always', signal: never })).digest).toBe(images[i]?.manifestDigest)
    expect(await expectConsistent(store)).toBe(2)
    await store.close()
  }, 120_000)

  test('a living process is not disturbed by one that opens the store beside it', async () => {
    const references = [`${registry.host}/app:v0`]
    const child = spawn(process.execPath, [worker, dir, hostkitPath(), ...references], { stdio: ['ignore', 'pipe', 'inherit'] })
    let said = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
    const exited = new Promise((resolve) => child.once('exit', resolve))
    try {
      for (let i = 0; i < 10; i++) {
        const store = makeStore(dir)
        await store.prune(never)
        await store.close()
      }
      const before = said.length
      await expect.poll(() => said.length, { timeout: 10_000 }).toBeGreaterThan(before + 2)
    } finally {
      child.kill('SIGKILL')
      await exited
    }
  })
})

test('a lock helper that is killed is replaced, and leases still hold', async () => {
  const store = makeStore(dir)
  const other = makeStore(dir)
  try {
    await store.importArchive(writeLayout(join(work.path, 'layout-helper'), images[0] ?? [], 'kept:1'), { signal: never })
    const lease = await store.leaseRootfs(images[0]?.manifestDigest as ImageDigest)
    for (const pid of helpersOf(dir)) process.kill(pid, 'SIGKILL')
    await expect.poll(() => helpersOf(dir).length).toBeGreaterThan(0)
    // The first call may still meet the helper that ended; the lease must hold in any case.
    await expect.poll(() => other.remove('kept:1', never).then(() => 'removed', (error: { code: string }) => error.code)).toBe('image/in-use')
    await lease.release()
    await expect.poll(() => other.remove('kept:1', never).then(() => 'removed', (error: { code: string }) => error.code)).toBe('removed')
  } finally {
    await store.close()
    await other.close()
  }
})

test('a helper that is missing is a typed error', async () => {
  const store = makeStore(dir, { hostkitPath: join(work.path, 'missing') })
  await expect(store.importArchive('/nowhere', { signal: never })).rejects.toMatchObject({ code: 'store/unavailable', hint: expect.stringContaining('faas-hostkit') as string })
  await store.close()
})

test('a disk that gets full is told, leaves nothing behind, and the store goes on when there is room', async () => {
  mkdirSync(dir)
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'faas-image-store-test', dir])
  try {
    const store = makeStore(dir)
    const plain = { compress: (tar: Buffer) => tar, layerType: 'application/vnd.oci.image.layer.v1.tar' }
    const tooBig = image([[{ name: 'big', data: noise(7, 6_000_000) }]], plain)
    const fitsOnlyPacked = image([[{ name: 'big', data: Buffer.alloc(6_000_000) }]])
    for (const [name, of] of Object.entries({ tooBig, fitsOnlyPacked })) {
      const path = writeLayout(join(work.path, `layout-${name}`), of, `${name.toLowerCase()}:1`)
      await expect(store.importArchive(path, { signal: never })).rejects.toMatchObject({ code: 'store/unavailable', message: expect.stringContaining('full') as string })
      expect(leftovers(dir)).toEqual({ blobs: [], layers: [], tmp: [], temporaryState: [] })
    }
    const small = image([[{ name: 'small', data: 'fits' }]])
    expect(await store.importArchive(writeLayout(join(work.path, 'layout-small'), small, 'small:1'), { signal: never })).toHaveLength(1)
    await store.close()
  } finally {
    execFileSync('umount', [dir])
  }
})

afterEach(async () => {
  // A helper ends with its input, a moment after its store was closed.
  await expect.poll(() => helpersOf(dir), { timeout: 5000, interval: 10 }).toEqual([])
})
