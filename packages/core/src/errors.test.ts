import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { renderErrorDocs } from './errors-doc.js'
import { bug, ERROR_CODES, ERROR_KINDS, FaasError, isFaasError, toFaasError, type ErrorCode } from './errors.js'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const SOURCE_DIRS = ['packages', 'drivers', 'apps', 'sdks', 'scripts', 'agent/src']
const SKIPPED = new Set(['node_modules', 'dist', 'target', '.tools'])

/** Codes that later features will use; they are in the table so that clients can know them already. */
const RESERVED: readonly ErrorCode[] = ['mode/missing-parent']

function sources(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    if (SKIPPED.has(entry.name)) return []
    const path = join(dir, entry.name)
    if (entry.isDirectory()) return sources(path)
    return /(?<!\.test|\.prop\.test)\.(ts|mjs|rs)$/.test(entry.name) ? [path] : []
  })
}

describe('the table of error codes', () => {
  const entries = Object.entries(ERROR_CODES) as [ErrorCode, { kind: string; doc: string; retryable?: true }][]

  it.each(entries)('%s has a known kind, a name of the right form and a documented meaning', (code, entry) => {
    expect(code).toMatch(/^[a-z]+\/[a-z]+(-[a-z]+)*$/)
    expect(ERROR_KINDS).toContain(entry.kind)
    expect(entry.doc).toMatch(/^[A-Z`].*\.$/)
  })

  it('docs/errors.md is what the table generates', async () => {
    await expect(renderErrorDocs()).toMatchFileSnapshot('../../../docs/errors.md')
  })

  it('every kind is used, and only what may succeed later is retryable', () => {
    expect([...new Set(entries.map(([, entry]) => entry.kind))].sort()).toEqual([...ERROR_KINDS].sort())
    for (const [code, entry] of entries) {
      if (entry.retryable === true) expect(['rate_limited', 'unavailable', 'upstream_failed', 'deadline_exceeded'], code).toContain(entry.kind)
    }
  })

  it('every code is raised somewhere or reserved, and no source names a code that does not exist', () => {
    const own = join(ROOT, 'packages/core/src/errors.ts')
    const text = SOURCE_DIRS.flatMap((dir) => sources(join(ROOT, dir))).filter((path) => path !== own).map((path) => readFileSync(path, 'utf8')).join('\n')
    const unused = entries.map(([code]) => code).filter((code) => !text.includes(`'${code}'`) && !text.includes(`"${code}"`) && !RESERVED.includes(code))
    expect(unused).toEqual([])
    expect(RESERVED.filter((code) => text.includes(`'${code}'`)), 'used now, so no longer reserved').toEqual([])
    const named = new Set([...text.matchAll(/new FaasError\(\s*'([a-z-]+\/[a-z-]+)'/g)].map((match) => match[1] ?? ''))
    expect([...named].filter((code) => !(code in ERROR_CODES))).toEqual([])
  })
})

describe('FaasError', () => {
  it('takes kind and retryable from the table and keeps the cause', () => {
    const cause = new Error('socket closed')
    const error = new FaasError('image/pull-failed', { message: 'The pull failed.', hint: 'Try again.', details: { status: 503 }, cause })
    expect(error).toMatchObject({ name: 'FaasError', code: 'image/pull-failed', kind: 'upstream_failed', retryable: true, hint: 'Try again.', details: { status: 503 }, cause })
    expect(new FaasError('request/invalid', { message: 'No.' })).toMatchObject({ kind: 'invalid_argument', retryable: false, hint: undefined })
    expect('cause' in new FaasError('request/invalid', { message: 'No.' })).toBe(false)
  })

  it('a foreign error becomes internal/bug with itself as the cause and nothing of its text in the message', () => {
    const foreign = new Error('password=hunter2')
    const error = toFaasError(foreign)
    expect(error).toMatchObject({ code: 'internal/bug', kind: 'internal', cause: foreign })
    expect(error.message).not.toContain('hunter2')
    expect(toFaasError(error)).toBe(error)
    expect(toFaasError('text').cause).toBe('text')
  })

  it('is told apart by code', () => {
    const error = new FaasError('execution/not-found', { message: 'No.' })
    expect([isFaasError(error), isFaasError(error, 'execution/not-found'), isFaasError(error, 'request/invalid'), isFaasError(new Error())]).toEqual([true, true, false, false])
  })

  it('bug throws internal/bug with its details', () => {
    expect(() => bug('Impossible.', { n: 1 })).toThrowError(expect.objectContaining({ code: 'internal/bug', details: { n: 1 } }) as Error)
  })
})
