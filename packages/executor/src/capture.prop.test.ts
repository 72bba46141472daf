import fc from 'fast-check'
import { expect, test } from 'vitest'
import { StreamCapture } from './capture.js'

const chunks = fc.array(fc.uint8Array({ maxLength: 60 }), { maxLength: 40 })

function whole(parts: readonly Uint8Array[]): Buffer {
  return Buffer.concat(parts)
}

test('a stream within the limit comes back as it was', () => {
  fc.assert(fc.property(chunks, (parts) => {
    const all = whole(parts)
    const capture = new StreamCapture(all.length)
    for (const part of parts) capture.push(part)
    const { bytes, totalBytes, truncated } = capture.finish()
    expect(truncated).toBe(false)
    expect(totalBytes).toBe(all.length)
    expect(Buffer.from(bytes).equals(all)).toBe(true)
  }))
})

test('a longer one keeps its head and its tail, and says exactly how much is missing', () => {
  fc.assert(fc.property(chunks, fc.integer({ min: 0, max: 200 }), (parts, bytesMax) => {
    const all = whole(parts)
    const capture = new StreamCapture(bytesMax)
    for (const part of parts) capture.push(part)
    const { bytes, truncated } = capture.finish()
    expect(truncated).toBe(all.length > bytesMax)
    if (!truncated) return
    const kept = Buffer.from(bytes)
    const marker = [...kept.toString('latin1').matchAll(/\n?\u00e2\u0080\u00a6 (\d+) bytes left out \u00e2\u0080\u00a6\n/g)].find((match) => {
      const head = kept.subarray(0, match.index)
      const tail = kept.subarray(match.index + match[0].length)
      return head.length + tail.length + Number(match[1]) === all.length && all.subarray(0, head.length).equals(head) && all.subarray(all.length - tail.length).equals(tail)
    })
    expect(marker, 'a marker that accounts for every byte').toBeDefined()
    expect(kept.length).toBeLessThanOrEqual(bytesMax + 60)
  }))
})

test('text is never cut inside a character', () => {
  fc.assert(fc.property(fc.array(fc.string({ unit: 'grapheme', maxLength: 20 }), { maxLength: 40 }), fc.integer({ min: 0, max: 100 }), (texts, bytesMax) => {
    const capture = new StreamCapture(bytesMax)
    for (const text of texts) capture.push(new TextEncoder().encode(text))
    expect(() => new TextDecoder('utf-8', { fatal: true }).decode(capture.finish().bytes)).not.toThrow()
  }))
})
