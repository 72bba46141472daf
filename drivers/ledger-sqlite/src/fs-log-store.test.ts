import { appendFile, mkdtemp, readdir, rm, truncate, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { asId, FaasError, type ExecutionId, type LogEntry } from '@faas-platform/core'
import { FsLogStore } from './fs-log-store.js'

let dir: string
let store: FsLogStore

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'faas-logs-'))
  store = new FsLogStore({ dir: join(dir, 'logs') })
})

afterEach(() => rm(dir, { recursive: true, force: true }))

const ID = asId<ExecutionId>('0b1e6a5e-0000-4000-8000-000000000001')

function entries(count: number, size = 10): LogEntry[] {
  return Array.from({ length: count }, (_, seq) => seq % 5 === 0 ? { seq, type: 'state', state: 'running', atMs: seq + 0.5 } : { seq, type: seq % 2 === 0 ? 'stdout' : 'stderr', bytes: new Uint8Array(size).fill(seq % 256), atMs: seq + 0.5 })
}

async function readAll(id: ExecutionId, fromSeq = 0): Promise<LogEntry[]> {
  const reader = await store.open(id, fromSeq)
  const all: LogEntry[] = []
  if (reader === null) return all
  try {
    for (let part = await reader.read(); part.length > 0; part = await reader.read()) all.push(...part)
  } finally {
    await reader.close()
  }
  return all
}

async function pathOf(): Promise<string> {
  const [shard] = await readdir(join(dir, 'logs'))
  const [name] = await readdir(join(dir, 'logs', shard ?? ''))
  return join(dir, 'logs', shard ?? '', name ?? '')
}

test('what was appended is read back, from any point', async () => {
  const written = entries(3000, 100)
  const writer = await store.create(ID)
  await writer.append(written.slice(0, 1))
  await writer.append(written.slice(1))
  await writer.close()
  expect(await readAll(ID)).toEqual(written)
  expect(await readAll(ID, 2990)).toEqual(written.slice(2990))
})

test('an entry larger than a read comes whole', async () => {
  const written = entries(7, 1_000_000)
  const writer = await store.create(ID)
  await writer.append(written)
  await writer.close()
  const read = await readAll(ID)
  const sizes = (all: readonly LogEntry[]): string[] => all.map((entry) => `${entry.seq} ${'bytes' in entry ? `${entry.bytes.length} ${entry.bytes.at(-1)}` : entry.state}`)
  expect(sizes(read)).toEqual(sizes(written))
})

test('a reader goes on where it was when there is more', async () => {
  const written = entries(10)
  const writer = await store.create(ID)
  await writer.append(written.slice(0, 4))
  const reader = await store.open(ID, 0)
  expect(await reader?.read()).toEqual(written.slice(0, 4))
  expect(await reader?.read()).toEqual([])
  await writer.append(written.slice(4))
  expect(await reader?.read()).toEqual(written.slice(4))
  await reader?.close()
  await writer.close()
})

test('a half-written end, as a kill leaves it, is not shown', async () => {
  const written = entries(10)
  const writer = await store.create(ID)
  await writer.append(written)
  await writer.close()
  const path = await pathOf()
  for (const cut of [1, 9, 26]) {
    await truncate(path, 8 + 10 * 17 + 8 * 10 + 2 * 7 - cut)
    expect((await readAll(ID)).length).toBeGreaterThanOrEqual(8)
    expect(await readAll(ID)).toEqual(written.slice(0, (await readAll(ID)).length))
  }
})

test('a damaged log is reported', async () => {
  const writer = await store.create(ID)
  await writer.append(entries(2))
  await writer.close()
  await appendFile(await pathOf(), Buffer.alloc(64, 0xff))
  await expect(readAll(ID)).rejects.toThrow(FaasError)
})

test('there is no log of an unknown execution, and an old one is replaced', async () => {
  expect(await store.open(ID, 0)).toBeNull()
  for (const count of [5, 2]) {
    const writer = await store.create(ID)
    await writer.append(entries(count))
    await writer.close()
  }
  expect(await readAll(ID)).toHaveLength(2)
  await store.remove([ID, asId<ExecutionId>('never-was')])
  expect(await store.open(ID, 0)).toBeNull()
})

test('pruning removes the oldest that nobody uses until the rest fits', async () => {
  const ids = ['a', 'b', 'c', 'd'].map((name) => asId<ExecutionId>(`execution-${name}`))
  for (const [index, id] of ids.entries()) {
    const writer = await store.create(id)
    await writer.append([{ seq: 0, type: 'stdout', bytes: new Uint8Array(1000), atMs: 0 }])
    await writer.close()
    await utimes(join(dir, 'logs', id.slice(-2), `${id}.log`), index, index)
  }
  expect(await store.prune(2100, new Set([ids[0] ?? ID]))).toBe(2)
  expect(await Promise.all(ids.map(async (id) => (await readAll(id)).length))).toEqual([1, 0, 0, 1])
})

test('an id that is not fit for a file name is refused', async () => {
  await expect(store.create(asId<ExecutionId>('../../etc/passwd'))).rejects.toThrow(FaasError)
  await expect(store.open(asId<ExecutionId>('a/b'), 0)).rejects.toThrow(FaasError)
})
