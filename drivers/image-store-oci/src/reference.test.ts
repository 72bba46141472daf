import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseName, parseReference } from './reference.js'

const HEX = 'a'.repeat(64)

describe('a reference', () => {
  test.each([
    ['alpine', 'docker.io/library/alpine:latest'],
    ['alpine:3.19', 'docker.io/library/alpine:3.19'],
    ['docker.io/alpine', 'docker.io/library/alpine:latest'],
    ['index.docker.io/library/alpine', 'docker.io/library/alpine:latest'],
    ['owner/name', 'docker.io/owner/name:latest'],
    ['ghcr.io/owner/deep/name:Tag_1.0-x', 'ghcr.io/owner/deep/name:Tag_1.0-x'],
    ['localhost/name', 'localhost/name:latest'],
    ['localhost:5000/name', 'localhost:5000/name:latest'],
    ['127.0.0.1:5000/a/b:c', '127.0.0.1:5000/a/b:c'],
    ['[::1]:5000/a', '[::1]:5000/a:latest'],
    ['Registry/name', 'Registry/name:latest'],
    [`alpine@sha256:${HEX}`, `docker.io/library/alpine@sha256:${HEX}`],
    [`alpine:3.19@sha256:${HEX}`, `docker.io/library/alpine@sha256:${HEX}`],
    [`sha256:${HEX}`, `sha256:${HEX}`],
    ['a__b/c-d--e.f', 'docker.io/a__b/c-d--e.f:latest'],
  ])('%s means %s, which means itself', (text, normal) => {
    expect(parseReference(text).text).toBe(normal)
    expect(parseReference(normal).text).toBe(normal)
  })

  test.each([
    '', ' ', 'Alpine', 'alpine:', 'alpine:-x', 'a:b:c', 'a//b', '/a', 'a/', 'a/../b', '../a', 'a..b/c', 'a___b', '-a', 'a-', 'http://a/b', 'a b',
    'a@sha256:short', `a@sha512:${'a'.repeat(128)}`, `a@sha256:${HEX.toUpperCase()}`, `a@sha256:${HEX}@sha256:${HEX}`, 'host:0/a', 'host:99999/a', 'host:/a', '[::1/a', 'ex..ample.com/a', '-x.com/a',
    `a:${'t'.repeat(129)}`, `${'a/'.repeat(130)}a`, 'ä', 'a\n', 'a\0b', 'x'.repeat(600), 'user@host/a', 'host/a?x=1', 'host/a#f', 'a%2fb',
  ])('%j is refused with a hint', (text) => {
    expect(() => parseReference(text)).toThrowError(expect.objectContaining({ code: 'image/invalid-reference', hint: expect.any(String) as string }) as Error)
  })

  test('a bare digest is no name to store something under', () => {
    expect(() => parseName(`sha256:${HEX}`)).toThrowError(expect.objectContaining({ code: 'image/invalid-reference' }) as Error)
  })

  test('whatever is typed is refused or becomes a normal form that is stable and safe in an address', () => {
    const letters = fc.string({ unit: fc.constantFrom('a', 'B', '1', '.', ':', '/', '-', '_', '@', '[', ']', ' ', '%', '\\'), maxLength: 30 })
    fc.assert(
      fc.property(letters, (text) => {
        let parsed
        try {
          parsed = parseReference(text)
        } catch (error) {
          expect(error).toMatchObject({ code: 'image/invalid-reference' })
          return
        }
        expect(parseReference(parsed.text)).toEqual(parsed)
        if (parsed.kind === 'digest') return
        const url = new URL(`v2/${parsed.repository}/manifests/x`, `https://${parsed.registry.toLowerCase()}/`)
        expect(url.pathname).toBe(`/v2/${parsed.repository}/manifests/x`)
      }),
      { numRuns: 3000 },
    )
  })
})
