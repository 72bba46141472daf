import { describe, expect, it } from 'vitest'
import { timestamp } from './schema-parts.js'

describe('a timestamp', () => {
  it('stays in the format, however far away the moment is', () => {
    expect(timestamp(Date.UTC(2026, 10, 21, 12, 0, 0, 5))).toBe('2026-11-21T12:00:00.005Z')
    for (const ms of [Date.UTC(10_000, 0, 1), Number.MAX_SAFE_INTEGER, Infinity]) expect(timestamp(ms)).toBe('9999-12-31T23:59:59.999Z')
  })
})
