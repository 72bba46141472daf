import { execFileSync, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { AgentClient } from './agent-client.js'
import { AgentProcess } from './testing/agent-process.js'

let agent: AgentProcess
let client: AgentClient
let dir: string

beforeAll(async () => {
  agent = await AgentProcess.listen()
  client = await agent.client()
})
afterAll(async () => {
  await client.close()
  await agent[Symbol.asyncDispose]()
})
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'faas-agent-files-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

async function bytesOf(source: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of source) chunks.push(chunk)
  return Buffer.concat(chunks)
}

async function* inPieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

describe('files', () => {
  it('writes, reads, appends and reads ranges', async () => {
    const path = join(dir, 'deep/er/file')
    const bytes = randomBytes(1_000_000)
    await client.writeFile(path, inPieces(bytes, 70_001), { parents: true, mode: 0o600 })
    expect(readFileSync(path).equals(bytes)).toBe(true)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect((await bytesOf(client.readFile(path))).equals(bytes)).toBe(true)
    expect((await bytesOf(client.readFile(path, { offset: 999_990, length: 5 }))).equals(bytes.subarray(999_990, 999_995))).toBe(true)
    await client.writeFile(path, Buffer.from('short'))
    await client.writeFile(path, Buffer.from('er'), { append: true })
    expect(readFileSync(path, 'utf8')).toBe('shorter')
    await expect(client.writeFile(path, Buffer.from('x'), { exclusive: true })).rejects.toMatchObject({ details: { errno: 17 } })
  })

  it('describes, lists, makes, moves and removes', async () => {
    await client.mkdir(join(dir, 'a/b/c'), { parents: true })
    await client.mkdir(join(dir, 'a/b/c'), { parents: true })
    await expect(client.mkdir(join(dir, 'a'))).rejects.toMatchObject({ code: 'sandbox/file-error', details: { errno: 17 } })
    writeFileSync(join(dir, 'a/file'), 'twelve bytes')
    symlinkSync('file', join(dir, 'a/link'))
    expect(await client.stat(join(dir, 'a/file'))).toMatchObject({ name: 'file', kind: 'file', sizeBytes: 12 })
    expect(await client.stat(join(dir, 'a/link'))).toMatchObject({ kind: 'symlink', target: 'file' })
    expect(await client.stat(join(dir, 'a/link'), { follow: true })).toMatchObject({ kind: 'file', sizeBytes: 12 })
    const names: string[] = []
    for await (const entry of client.list(join(dir, 'a'))) names.push(`${entry.name} ${entry.kind}`)
    expect(names).toEqual(['b directory', 'file file', 'link symlink'])
    await client.move(join(dir, 'a/file'), join(dir, 'new/place'), { parents: true })
    expect(readFileSync(join(dir, 'new/place'), 'utf8')).toBe('twelve bytes')
    await expect(client.remove(join(dir, 'a'))).rejects.toMatchObject({ details: { errno: 39 } })
    await client.remove(join(dir, 'a'), { recursive: true })
    expect(existsSync(join(dir, 'a'))).toBe(false)
    await expect(client.stat(join(dir, 'a'))).rejects.toMatchObject({ details: { reason: 'file', errno: 2 } })
  })

  it('lists a directory of many thousand entries', async () => {
    for (let i = 0; i < 5_000; i++) writeFileSync(join(dir, `file-with-a-rather-long-name-${i}`), '')
    let count = 0
    for await (const entry of client.list(dir)) count += entry.kind === 'file' ? 1 : 0
    expect(count).toBe(5_000)
  })

  it('refuses relative paths, removing the root, and writes to the kernel', async () => {
    await expect(client.stat('etc/passwd')).rejects.toMatchObject({ code: 'request/invalid' })
    await expect(client.remove('/', { recursive: true })).rejects.toMatchObject({ code: 'request/invalid' })
    symlinkSync(`/proc/${agent.child.pid}/mem`, join(dir, 'trap'))
    await expect(client.writeFile(join(dir, 'trap'), Buffer.from('x'))).rejects.toMatchObject({ details: { errno: 1 } })
  })

  it('a FIFO does not hold a reader for ever', async () => {
    execFileSync('mkfifo', [join(dir, 'fifo')])
    await expect(bytesOf(client.readFile(join(dir, 'fifo')))).rejects.toMatchObject({ code: 'sandbox/file-error' })
  })

  it('stopping a read early frees the agent for the next', async () => {
    const path = join(dir, 'large')
    writeFileSync(path, Buffer.alloc(5_000_000))
    for (let i = 0; i < 20; i++) {
      for await (const chunk of client.readFile(path)) {
        expect(chunk.length).toBeGreaterThan(0)
        break
      }
    }
    expect((await bytesOf(client.readFile(path))).length).toBe(5_000_000)
  })

  it('an aborted write rejects with the reason and leaves the connection usable', async () => {
    const stop = new AbortController()
    async function* endless(): AsyncGenerator<Uint8Array> {
      for (let i = 0; ; i++) {
        if (i === 50) stop.abort()
        yield Buffer.alloc(10_000)
      }
    }
    await expect(client.writeFile(join(dir, 'f'), endless(), { signal: stop.signal })).rejects.toMatchObject({ code: 'execution/cancelled' })
    await client.ping()
  })
})

describe('tar', () => {
  it('a tree comes back as it went in, and GNU tar agrees', async () => {
    const source = join(dir, 'source')
    mkdirSync(join(source, 'x'.repeat(120), 'y'.repeat(120)), { recursive: true })
    writeFileSync(join(source, 'x'.repeat(120), 'y'.repeat(120), 'file'), randomBytes(300_000))
    writeFileSync(join(source, 'script'), '#!/bin/sh\n', { mode: 0o755 })
    execFileSync('ln', [join(source, 'script'), join(source, 'same')])
    symlinkSync('/nowhere', join(source, 'link'))
    const archive = await bytesOf(client.copyOut(source))
    const listing = execFileSync('tar', ['-tf', '-'], { input: archive, encoding: 'utf8' })
    expect(listing.split('\n').filter(Boolean)).toHaveLength(7)
    const answer = await client.copyIn(join(dir, 'target'), inPieces(archive, 33_333))
    expect(answer).toEqual({ entries: 7, bytes: 300_010 })
    execFileSync('diff', ['-r', '--no-dereference', source, join(dir, 'target/source')])
    expect(statSync(join(dir, 'target/source/same')).nlink).toBe(2)
  })

  it('unpacks what GNU tar packs in each of its formats', async () => {
    mkdirSync(join(dir, 'source'))
    writeFileSync(join(dir, 'source', 'n'.repeat(200)), 'long')
    for (const format of ['gnu', 'pax', 'oldgnu']) {
      const archive = execFileSync('tar', [`--format=${format}`, '-C', join(dir, 'source'), '-cf', '-', '.'])
      await client.copyIn(join(dir, format), inPieces(archive, 5_000))
      expect(readdirSync(join(dir, format))).toEqual(['n'.repeat(200)])
    }
  })

  it('gives everything to the owner asked for', async () => {
    writeFileSync(join(dir, 'f'), 'x')
    const archive = await bytesOf(client.copyOut(join(dir, 'f')))
    await client.copyIn(join(dir, 'owned'), inPieces(archive, 1_000), { uid: 4321, gid: 1234 })
    expect(statSync(join(dir, 'owned/f'))).toMatchObject({ uid: 4321, gid: 1234 })
  })

  it('refuses archives that lead out, hold devices or are damaged', async () => {
    writeFileSync(join(dir, 'f'), 'x')
    const tar = (...args: string[]): Buffer => execFileSync('tar', ['-C', dir, '-cf', '-', ...args])
    const target = join(dir, 'target')
    const up = tar('--transform=s,^,../,', '-P', 'f')
    await expect(client.copyIn(target, inPieces(up, 999))).rejects.toMatchObject({ code: 'sandbox/path-invalid', details: { reason: 'escape' } })
    symlinkSync(dir, join(dir, 'link'))
    const through = Buffer.concat([tar('link').subarray(0, 512), tar('--transform=s,^,link/,', 'f')])
    await expect(client.copyIn(target, inPieces(through, 999))).rejects.toMatchObject({ code: 'sandbox/path-invalid' })
    execFileSync('mknod', [join(dir, 'null'), 'c', '1', '3'])
    await expect(client.copyIn(target, inPieces(tar('null'), 999))).rejects.toMatchObject({ details: { reason: 'bad-archive' } })
    await expect(client.copyIn(target, inPieces(randomBytes(2_000), 999))).rejects.toMatchObject({ details: { reason: 'bad-archive' } })
    await expect(client.copyIn(target, inPieces(tar('f').subarray(0, 700), 999))).rejects.toMatchObject({ details: { reason: 'bad-archive' } })
  })

  it('a failing source is not mistaken for the end of the archive', async () => {
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield Buffer.alloc(100, 1)
      throw new Error('disk gone')
    }
    await expect(client.copyIn(join(dir, 't'), broken())).rejects.toThrow('disk gone')
    await client.ping()
  })

  it('streams while commands run, and keeps both sides within their memory', async () => {
    const before = agent.memoryBytes()
    const big = join(dir, 'big')
    const fill = spawn('truncate', ['-s', '200M', big])
    await new Promise((resolve) => fill.on('exit', resolve))
    let total = 0
    const packing = (async () => {
      for await (const chunk of client.copyOut(big)) total += chunk.length
    })()
    const exec = await client.exec({ argv: ['true'], env: { PATH: '/bin:/usr/bin' } }, { onOutput: () => undefined })
    await exec.wait()
    await packing
    expect(total).toBe(200 * 1024 * 1024 + 512 + 1024)
    expect(agent.memoryBytes('VmHWM') - before).toBeLessThan(6 * 1024 * 1024)
  })
})
