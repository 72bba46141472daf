import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ImageStore } from '@faas-platform/core'
import { FaasError, silentLog } from '@faas-platform/core'
import { eventually, MemoryImageStore } from '@faas-platform/testkit'
import { describe, expect, it } from 'vitest'
import { LocalImages } from './local-images.js'

const never = new AbortController().signal

/** A store that takes any directory as an image; what matters here is which names it is asked to take. */
class RecordingStore extends MemoryImageStore {
  readonly imports: string[] = []
  /** As the real stores have it: a mark of the name, not of the content. */
  readonly #standIns = new Set<string>()
  constructor() {
    super(() => Date.now())
  }
  override async importArchive(path: string, options: Parameters<ImageStore['importArchive']>[1]): ReturnType<ImageStore['importArchive']> {
    if (path.includes('broken')) throw new FaasError('image/invalid', { message: 'The image is broken.' })
    this.imports.push(options.reference ?? '')
    this.add(options.reference ?? '', { programs: [], files: { '/path': path } })
    if (options.standIn === true) this.#standIns.add(options.reference ?? '')
    return (await this.list()).filter((image) => image.reference === options.reference)
  }
  override async resolve(...call: Parameters<ImageStore['resolve']>): ReturnType<ImageStore['resolve']> {
    return { ...(await super.resolve(...call)), standIn: this.#standIns.has(call[0]) }
  }
}

async function setUp(): Promise<AsyncDisposable & { readonly dir: string; build(name: string, ref: string): Promise<void>; make(store: ImageStore, standIns?: 'auto' | 'never'): LocalImages }> {
  const dir = await mkdtemp(join(tmpdir(), 'faas-images-test-'))
  return {
    dir,
    async build(name, ref) {
      await mkdir(join(dir, name))
      await writeFile(join(dir, `${name}.stamp.tmp`), JSON.stringify({ ref, digest: `sha256:${'0'.repeat(64)}` }))
      await cp(join(dir, `${name}.stamp.tmp`), join(dir, `${name}.stamp.json`))
    },
    make: (store, standIns = 'auto') => new LocalImages({ dir, standIns, stores: new Map([['docker', store]]), log: silentLog, onImported: () => undefined }),
    [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
  }
}

describe('built images', () => {
  it('come in under their own name and, marked, under the names they stand in for', async () => {
    await using images = await setUp()
    await images.build('base', 'faas/base:latest')
    const store = new RecordingStore()
    await using local = images.make(store)
    await local.bringIn()
    expect(store.imports).toEqual(['faas/base:latest', 'alpine:latest'])
    expect((await store.resolve('alpine:latest', { pull: 'never', signal: never })).standIn).toBe(true)
    expect((await store.resolve('faas/base:latest', { pull: 'never', signal: never })).standIn).toBe(false)
    await local.bringIn()
    expect(store.imports).toHaveLength(2)
  })

  it('never replace an image that carries the name already', async () => {
    await using images = await setUp()
    await images.build('base', 'faas/base:latest')
    const store = new RecordingStore()
    store.add('alpine:latest', { programs: [], files: { '/real': '1' } })
    await using local = images.make(store)
    await local.bringIn()
    expect(store.imports).toEqual(['faas/base:latest'])
    expect((await store.resolve('alpine:latest', { pull: 'never', signal: never })).standIn).toBe(false)
  })

  it('mark a name that another gateway of the same engine gave to the same image', async () => {
    await using images = await setUp()
    await images.build('base', 'faas/base:latest')
    const store = new RecordingStore()
    for (const reference of ['faas/base:latest', 'alpine:latest']) await store.importArchive(join(images.dir, 'base'), { reference, signal: never })
    await using local = images.make(store)
    await local.bringIn()
    expect((await store.resolve('alpine:latest', { pull: 'never', signal: never })).standIn).toBe(true)
  })

  it('stand in for nothing when told not to', async () => {
    await using images = await setUp()
    await images.build('base', 'faas/base:latest')
    const store = new RecordingStore()
    await using local = images.make(store, 'never')
    await local.bringIn()
    expect(store.imports).toEqual(['faas/base:latest'])
  })

  it('that are built later come in while the gateway serves', async () => {
    await using images = await setUp()
    const store = new RecordingStore()
    await using local = images.make(store)
    await local.bringIn()
    local.watch()
    await images.build('python', 'faas/python:3.11')
    await eventually(() => store.imports.includes('python:3.11-slim'))
  })

  it('that a first request needs come alone, and the others with the next round', async () => {
    await using images = await setUp()
    await images.build('base', 'faas/base:latest')
    await images.build('node', 'faas/node:20')
    const store = new RecordingStore()
    await using local = images.make(store)
    await local.bringIn('alpine:latest')
    expect(store.imports).toEqual(['faas/base:latest', 'alpine:latest'])
    await local.bringIn()
    expect(store.imports).toEqual(['faas/base:latest', 'alpine:latest', 'faas/node:20', 'node:20-slim', 'node:18-alpine'])
  })

  it('that are on their way when the gateway ends are waited for', async () => {
    await using images = await setUp()
    await images.build('base', 'faas/base:latest')
    const store = new RecordingStore()
    const local = images.make(store)
    const round = local.bringIn()
    await local[Symbol.asyncDispose]()
    const after = store.imports.length
    await round
    expect(store.imports).toHaveLength(after)
  })

  it('that can not be taken do not keep the others out', async () => {
    await using images = await setUp()
    await images.build('a-broken', 'faas/broken:1')
    await images.build('base', 'faas/base:latest')
    const store = new RecordingStore()
    await using local = images.make(store)
    await local.bringIn()
    expect(store.imports).toContain('faas/base:latest')
  })
})
