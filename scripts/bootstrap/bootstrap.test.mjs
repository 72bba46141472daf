import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { readElf } from './elf.mjs'
import { checkHost } from './host-check.mjs'
import { startTime, withLock } from './lock.mjs'
import { missingPackages } from './node-modules.mjs'
import { sourceLines } from './private-apt.mjs'
import { run } from './process.mjs'
import { addCounts, countCargo, countVitest, isSuccess, noTests, slowestFiles, summaryLine } from './test-summary.mjs'
import { compareVersions, cveNotes, TOOLS, upstream } from './tool-catalog.mjs'

const work = []
afterEach(() => {
  for (const dir of work.splice(0)) rmSync(dir, { recursive: true, force: true })
})
function directory() {
  const dir = mkdtempSync(join(tmpdir(), 'faas-bootstrap-'))
  work.push(dir)
  return dir
}

describe('tool catalog', () => {
  it('knows which runc versions are fixed against which escapes', () => {
    expect(cveNotes('runc', '1.3.6+ds1-1')?.every((note) => note.endsWith(': fixed'))).toBe(true)
    expect(cveNotes('runc', '1.2.8')?.every((note) => note.endsWith(': fixed'))).toBe(true)
    expect(cveNotes('runc', '1.1.5+ds1-1+deb12u1')).toEqual([
      'CVE-2024-21626: fixed',
      'CVE-2025-31133: NOT FIXED',
      'CVE-2025-52565: NOT FIXED',
      'CVE-2025-52881: NOT FIXED',
    ])
    expect(cveNotes('runc', '1.1.5+ds1-1')?.[0]).toBe('CVE-2024-21626: NOT FIXED')
    expect(cveNotes('runc', '1.3.2')?.at(-1)).toBe('CVE-2025-52881: NOT FIXED')
    expect(cveNotes('busybox', '1.0')).toBeUndefined()
  })

  it('reads upstream versions out of Debian ones and orders them by number', () => {
    expect(upstream('1:1.38.0-3+b1')).toBe('1.38.0')
    expect(upstream('0.0~20240729.0-7+b1')).toBe('0.0')
    expect(compareVersions('1.10', '1.9')).toBeGreaterThan(0)
    expect(compareVersions('1.2', '1.2.0')).toBe(0)
  })

  it('says of every tool what is lost without it', () => {
    for (const { lost, from } of TOOLS) {
      expect(lost.length).toBeGreaterThan(10)
      expect(from.length).toBeGreaterThan(0)
    }
    expect(new Set(TOOLS.map(({ name }) => name)).size).toBe(TOOLS.length)
  })
})

describe('private apt', () => {
  it('adds the security archive to a stable suite and nothing to sid', () => {
    const mirror = { archive: 'http://m/debian', security: 'http://m/debian-security' }
    expect(sourceLines({ suite: 'sid', mirror, keyring: '/k' })).toEqual(['deb [signed-by=/k] http://m/debian sid main'])
    expect(sourceLines({ suite: 'trixie', mirror, keyring: '/k' })).toEqual([
      'deb [signed-by=/k] http://m/debian trixie main',
      'deb [signed-by=/k] http://m/debian-security trixie-security main',
    ])
    expect(sourceLines({ suite: 'trixie', mirror: { archive: 'http://m/debian' }, keyring: '/k' })).toHaveLength(1)
  })
})

describe('child processes', () => {
  it('give their output and exit code back', async () => {
    const result = await run('sh', ['-c', 'cat; echo err >&2; exit 3'], { input: 'in', check: false })
    expect(result).toEqual({ code: 3, signal: null, stdout: 'in', stderr: 'err\n' })
  })

  it('that fail become an error with their last words', async () => {
    await expect(run('sh', ['-c', 'echo why >&2; exit 1'])).rejects.toThrow(/ended with 1: why/)
    await expect(run('/no/such/program', [])).rejects.toThrow(/could not be started/)
  })

  it('that hang are ended at their deadline', async () => {
    await expect(run('sleep', ['60'], { timeoutMs: 100 })).rejects.toThrow(/did not end within 100 ms/)
  })

  it('that ignore their input do not fail on it', async () => {
    expect((await run('true', [], { input: 'x'.repeat(1_000_000) })).code).toBe(0)
  })
})

describe('lock', () => {
  it('lets one holder in at a time', async () => {
    const dir = directory()
    let inside = 0
    let most = 0
    const task = async () => {
      inside += 1
      most = Math.max(most, inside)
      await run('true', [])
      inside -= 1
    }
    await Promise.all([withLock(dir, 'x', task), withLock(dir, 'x', task), withLock(dir, 'x', task)])
    expect(most).toBe(1)
  })

  it('is taken over from a dead owner, and from another process with a reused pid', async () => {
    const dir = directory()
    writeFileSync(join(dir, '.lock-x'), `${process.pid} 1`)
    expect(await withLock(dir, 'x', async () => 'in', { timeoutMs: 5_000 })).toBe('in')
  })

  it('of a living owner is respected until the deadline', async () => {
    const dir = directory()
    writeFileSync(join(dir, '.lock-x'), `${process.pid} ${startTime(process.pid)}`)
    await expect(withLock(dir, 'x', async () => 'in', { timeoutMs: 100 })).rejects.toThrow(/was held for more than 100 ms/)
    expect(readFileSync(join(dir, '.lock-x'), 'utf8')).toContain(String(process.pid))
  })
})

describe('ELF files', () => {
  it('name their loader, and other files are no ELF files', () => {
    expect(readElf(process.execPath)?.interpreter).toMatch(/ld-linux/)
    const text = join(directory(), 'text')
    writeFileSync(text, '#!/bin/sh\n')
    expect(readElf(text)).toBeUndefined()
  })
})

describe('host check', () => {
  it('refuses an old Node.js and a system that is not Linux, with a way out', () => {
    expect(() => checkHost({ nodeVersion: '20.18.3' })).toThrow(/too old/)
    expect(() => checkHost({ platform: 'darwin' })).toThrow(/need Linux/)
  })

  it('tells a user who is not root what still works', () => {
    expect(checkHost({ uid: 1000 })[0]).toMatch(/not root.*Still works.*sudo npm start/)
    expect(checkHost({ uid: 0, nodeVersion: '20.19.0' })).toEqual([])
  })
})

describe('npm dependencies', () => {
  const entry = { version: '1.0.0', integrity: 'sha512-x' }
  it('are missing when absent, of another version, or not linked', () => {
    const locked = { '': {}, 'packages/core': {}, 'node_modules/a': entry, 'node_modules/b': entry, 'node_modules/@x/core': { link: true }, 'node_modules/mac': { ...entry, optional: true } }
    expect(missingPackages(locked, {})).toEqual(['node_modules/a', 'node_modules/b', 'node_modules/@x/core'])
    expect(missingPackages(locked, { 'node_modules/a': entry, 'node_modules/b': { ...entry, version: '1.0.1' }, 'node_modules/@x/core': { link: true } })).toEqual(['node_modules/b'])
  })
})

describe('test summary', () => {
  const report = {
    testResults: [
      { status: 'passed', assertionResults: [{ status: 'passed' }, { status: 'skipped', fullName: 'a skipped one' }, { status: 'todo', fullName: 'a todo' }] },
      { status: 'failed', assertionResults: [{ status: 'failed' }, { status: 'passed' }] },
      { status: 'failed', assertionResults: [] },
    ],
  }

  it('names the files that take longest', () => {
    const timed = { testResults: [{ name: '/r/a.test.ts', startTime: 0, endTime: 1500 }, { name: '/r/b.test.ts', startTime: 0, endTime: 20_000 }, { name: '/r/c.test.ts', startTime: 0, endTime: 10 }] }
    expect(slowestFiles(timed, { root: '/r', count: 2 }).map((line) => line.trim())).toEqual(['20.0 s  b.test.ts', '1.5 s  a.test.ts'])
    expect(slowestFiles(undefined, { root: '/r', count: 2 })).toEqual([])
  })

  it('counts tests, files that do not load, and errors outside of tests', () => {
    expect(countVitest(report, 1)).toEqual({ passed: 2, failed: 2, skipped: 2, skippedNames: ['a skipped one', 'a todo'] })
    expect(countVitest(undefined, 1).failed).toBe(1)
    expect(countVitest({ testResults: [] }, 1).failed).toBe(1)
  })

  it('adds up every cargo target', () => {
    const output = 'test a ... ok\ntest b ... ignored\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\ntest result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured\n'
    expect(countCargo(output, 101)).toEqual({ passed: 4, failed: 2, skipped: 1, skippedNames: ['agent b'] })
    expect(countCargo('error: could not compile', 101).failed).toBe(1)
  })

  it('is a success only when something ran, nothing failed, and in CI nothing was skipped', () => {
    const good = { ...noTests(), passed: 3 }
    expect(isSuccess(good, { ci: true })).toBe(true)
    expect(isSuccess({ ...good, skipped: 1 }, { ci: true })).toBe(false)
    expect(isSuccess({ ...good, skipped: 1 }, { ci: false })).toBe(true)
    expect(isSuccess({ ...good, failed: 1 }, { ci: false })).toBe(false)
    expect(isSuccess(noTests(), { ci: false })).toBe(false)
    expect(summaryLine(addCounts(good, { ...noTests(), skipped: 2 }))).toBe('3 passed, 0 failed, 2 skipped')
  })
})
