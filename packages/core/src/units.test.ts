import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { bytesToMibCeil, bytesToMibRound, formatBytes, formatMs, GIB, KIB, MIB, mibToBytes, secondsToMs } from './units.js'

describe('units', () => {
  it('a limit never shrinks on its way to MiB and back', () => {
    fc.assert(fc.property(fc.nat({ max: 2 ** 46 }), (bytes) => {
      const back = mibToBytes(bytesToMibCeil(bytes))
      expect(back).toBeGreaterThanOrEqual(bytes)
      expect(back - bytes).toBeLessThan(MIB)
    }))
  })

  it('whole MiB go to bytes and back unchanged', () => {
    fc.assert(fc.property(fc.nat({ max: 2 ** 32 }), (mib) => {
      expect(bytesToMibCeil(mibToBytes(mib))).toBe(mib)
      expect(bytesToMibRound(mibToBytes(mib))).toBe(mib)
    }))
  })

  it.each([[0, 0, 0], [1, 1, 0], [MIB - 1, 1, 1], [MIB, 1, 1], [MIB + 1, 2, 1], [MIB * 1.5, 2, 2], [512 * MIB, 512, 512]])('%d bytes are %d MiB rounded up and %d rounded', (bytes, ceil, round) => {
    expect([bytesToMibCeil(bytes), bytesToMibRound(bytes)]).toEqual([ceil, round])
  })

  it.each([[0, 0], [1, 1000], [0.5, 500], [0.0004, 0], [0.0005, 1], [1.2345, 1235], [30, 30_000]])('%d s are %d ms', (seconds, ms) => {
    expect(secondsToMs(seconds)).toBe(ms)
  })

  it.each([[0, '0.00 ms'], [1.234, '1.23 ms'], [12.34, '12.3 ms'], [999, '999.0 ms'], [1200, '1.20 s'], [59_990, '59.99 s'], [60_000, '1 min 0 s'], [200_000, '3 min 20 s']])('%d ms read as %s', (ms, text) => {
    expect(formatMs(ms)).toBe(text)
  })

  it('a duration never reads as sixty seconds past a minute', () => {
    fc.assert(fc.property(fc.integer({ min: 60_000, max: 86_400_000 }), (ms) => {
      expect(formatMs(ms)).not.toMatch(/ 60 s$/)
    }))
  })

  it.each([[0, '0 B'], [512, '512 B'], [1023, '1023 B'], [4 * KIB, '4.0 KiB'], [1.5 * GIB, '1.5 GiB'], [1024 * GIB, '1.0 TiB'], [5_000 * 1024 * GIB, '5000.0 TiB']])('%d bytes read as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text)
  })
})
