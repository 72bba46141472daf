import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { packTar, unpackTar, type TarEntry } from './tar.js'

const segment = fc.string({ minLength: 1, maxLength: 60, unit: 'grapheme' }).map((text) => text.replace(/[/\0]/g, '_')).filter((text) => text !== '.' && text !== '..' && text.isWellFormed())
const path = fc.array(segment, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('/'))
const common = { path, mode: fc.nat({ max: 0o7777 }), uid: fc.nat({ max: 0o7777777 }), gid: fc.nat({ max: 0o7777777 }), mtimeMs: fc.nat({ max: 2_000_000_000 }).map((s) => s * 1000) }
const entry: fc.Arbitrary<TarEntry> = fc.oneof(
  fc.record({ ...common, type: fc.constant('file' as const), data: fc.uint8Array({ maxLength: 2_000 }) }),
  fc.record({ ...common, type: fc.constant('symlink' as const), linkTarget: path }),
)

describe('the tar codec', () => {
  it('what is packed comes out the same', () => {
    fc.assert(fc.property(fc.array(entry, { maxLength: 8 }), (entries) => {
      expect(unpackTar(packTar(entries))).toEqual(entries)
    }))
  })

  it('an archive that is cut anywhere inside an entry, or has a wrong header, is refused', () => {
    const whole = packTar([{ path: 'a', type: 'file', data: new Uint8Array(1_000) }])
    for (const length of [600, 1_000, 1_500]) expect(() => unpackTar(whole.subarray(0, length))).toThrowError(/ends inside/)
    const broken = whole.slice()
    broken[0] = 66
    expect(() => unpackTar(broken)).toThrowError(/checksum/)
  })

  it('the tar of the system reads it', () => {
    const archive = packTar([
      { path: 'dir', type: 'dir' },
      { path: `dir/${'long'.repeat(50)}`, type: 'file', data: new Uint8Array(3) },
      { path: 'dir/漢字', type: 'file', data: new Uint8Array(0) },
      { path: 'dir/link', type: 'symlink', linkTarget: '漢字' },
    ])
    const listing = execFileSync('tar', ['-t', '--quoting-style=literal'], { input: archive, env: { ...process.env, LC_ALL: 'C.UTF-8' } }).toString()
    expect(listing.trim().split('\n')).toEqual(['dir/', `dir/${'long'.repeat(50)}`, 'dir/漢字', 'dir/link'])
  })
})
