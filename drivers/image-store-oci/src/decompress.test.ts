import { gzipSync } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { decompress, detectCompression } from './decompress.js'
import { zstdImage } from './testing/zstd-fixture.js'
import { ZstdFrameGuard } from './zstd-frame-guard.js'

const [layer] = zstdImage().layers
const compressed = layer?.blob ?? Buffer.alloc(0)

async function* pieces(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

async function all(bytes: Uint8Array, size = 1000): Promise<Buffer> {
  const parts: Uint8Array[] = []
  for await (const part of decompress(pieces(bytes, size), new AbortController().signal)) parts.push(part)
  return Buffer.concat(parts)
}

describe('decompressing', () => {
  test.each([1, 3, 7, 100_000])('zstd, gzip and plain bytes come out whole in pieces of %i', async (size) => {
    expect(await all(compressed, size)).toEqual(layer?.tar)
    expect(await all(gzipSync(layer?.tar ?? ''), size)).toEqual(layer?.tar)
    expect(await all(layer?.tar ?? Buffer.alloc(0), size)).toEqual(layer?.tar)
    expect(await all(Buffer.alloc(0), size)).toEqual(Buffer.alloc(0))
  })

  test('several zstd frames, with one to skip between them, are one stream', async () => {
    const skippable = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
    expect(await all(Buffer.concat([compressed, skippable, compressed]), 5)).toEqual(Buffer.concat([layer?.tar ?? Buffer.alloc(0), layer?.tar ?? Buffer.alloc(0)]))
  })

  test('a stream cut off anywhere is refused', async () => {
    for (let end = 4; end < compressed.length; end++) await expect(all(compressed.subarray(0, end)), `${end}`).rejects.toMatchObject({ code: 'image/invalid' })
    const zipped = gzipSync(layer?.tar ?? '')
    for (let end = 3; end < zipped.length; end++) await expect(all(zipped.subarray(0, end)), `${end}`).rejects.toMatchObject({ code: 'image/invalid' })
  })

  test('a window beyond 128 MiB is refused before the decoder sees it', () => {
    const huge = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xf8])
    expect(() => new ZstdFrameGuard().push(huge)).toThrowError(/128 MiB/)
    const single = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0])
    expect(() => new ZstdFrameGuard().push(single)).toThrowError(/128 MiB/)
  })

  test('compression is told by content', () => {
    expect([compressed, gzipSync(''), Buffer.from('ustar'), Buffer.alloc(0)].map(detectCompression)).toEqual(['zstd', 'gzip', 'none', 'none'])
  })
})
