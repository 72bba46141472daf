import { Duplex, PassThrough } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AttachStream } from './attach-stream.js'

function frame(stream: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(8)
  head[0] = stream
  head.writeUInt32BE(payload.length, 4)
  return Buffer.concat([head, payload])
}

/** A connection that delivers these chunks and then ends. */
function delivering(chunks: readonly Uint8Array[]): Duplex {
  const source = new PassThrough()
  const socket = Duplex.from({ readable: source, writable: new PassThrough() })
  for (const chunk of chunks) source.write(chunk)
  source.end()
  return socket
}

function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = []
  let at = 0
  for (let index = 0; at < bytes.length; index++) {
    const size = sizes[index % sizes.length] ?? 1
    chunks.push(bytes.subarray(at, at + size))
    at += size
  }
  return chunks
}

describe('the attach stream', () => {
  test('gives the same bytes however the connection cuts them, and keeps stderr apart', async () => {
    const frames = fc.array(fc.record({ stream: fc.constantFrom(1, 2), payload: fc.uint8Array({ maxLength: 300 }) }), { maxLength: 20 })
    const sizes = fc.array(fc.integer({ min: 1, max: 64 }), { minLength: 1, maxLength: 8 })
    await fc.assert(
      fc.asyncProperty(frames, sizes, async (parts, chunkSizes) => {
        const whole = Buffer.concat(parts.map(({ stream, payload }) => frame(stream, payload)))
        const stream = new AttachStream(delivering(cut(whole, chunkSizes)))
        const out = await buffer(stream)
        const of = (wanted: number): Buffer => Buffer.concat(parts.filter(({ stream: kind }) => kind === wanted).map(({ payload }) => payload))
        expect(out.equals(of(1))).toBe(true)
        expect(stream.notes).toBe(of(2).subarray(-4096).toString('utf8'))
      }),
      { numRuns: 200 },
    )
  })

  test('ends with a protocol error on whatever is not its format, and never hangs', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ minLength: 8, maxLength: 400 }), async (noise) => {
        const stream = new AttachStream(delivering([noise]))
        const result = await buffer(stream).then(
          () => 'ended',
          (error: unknown) => (error as { kind?: string }).kind,
        )
        const known = noise[0] === 1 || noise[0] === 2
        if (!known) expect(result).toBe('protocol')
        else expect(['ended', 'protocol']).toContain(result)
      }),
      { numRuns: 300 },
    )
  })

  test('stops the connection when nobody reads', async () => {
    const source = new PassThrough({ highWaterMark: 1024 })
    const stream = new AttachStream(Duplex.from({ readable: source, writable: new PassThrough() }))
    let written = 0
    const payload = Buffer.alloc(64 * 1024)
    while (written < 200 && source.write(frame(1, payload))) {
      written++
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(written).toBeLessThan(20)
    stream.destroy()
  })
})
