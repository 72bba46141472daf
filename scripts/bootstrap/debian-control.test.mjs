import { describe, expect, it } from 'vitest'
import { libraryClosure, parseDepends, parsePackages } from './debian-control.mjs'

const PACKAGES = `Package: tool
Version: 1:2.0-1
Depends: libone (>= 1.2), libtwo:any | libother, debconf (>= 0.5) | debconf-2.0,
 libthree
Pre-Depends: libc6 (>= 2.38)
Size: 12
SHA256: ${'a'.repeat(64)}
Description: a tool
 Depends: this is not a field

Package: libone
Version: 1
Depends: libc6
SHA256: ${'b'.repeat(64)}
`

describe('Debian control data', () => {
  it('reads stanzas with continuation lines', () => {
    const [tool, libone] = parsePackages(PACKAGES)
    expect(tool).toEqual({
      name: 'tool',
      version: '1:2.0-1',
      size: 12,
      sha256: 'a'.repeat(64),
      depends: [['libc6'], ['libone'], ['libtwo', 'libother'], ['debconf', 'debconf-2.0'], ['libthree']],
    })
    expect(libone.depends).toEqual([['libc6']])
  })

  it('reads dependencies without versions, architectures and empty groups', () => {
    expect(parseDepends('a (>= 1), b | c:any, , d [linux-any]')).toEqual([['a'], ['b', 'c'], ['d']])
    expect(parseDepends('')).toEqual([])
  })

  it('follows libraries only, each once, and asks one question per level', async () => {
    const archive = new Map(
      [
        ['tool', [['libone'], ['debconf'], ['liba', 'libb']]],
        ['libone', [['libc6'], ['libone-dev'], ['libfoo-perl']]],
        ['liba', [['libc6']]],
        ['libb', []],
        ['libc6', [['libgcc-s1']]],
        ['libgcc-s1', [['libc6']]],
      ].map(([name, depends]) => [name, { name, depends, version: '1', sha256: '', size: 0 }]),
    )
    const asked = []
    const closure = await libraryClosure(['tool'], async (names) => {
      asked.push(names)
      return names.flatMap((name) => archive.get(name) ?? [])
    })
    expect(closure.map(({ name }) => name)).toEqual(['liba', 'libc6', 'libgcc-s1', 'libone', 'tool'])
    expect(asked).toEqual([['tool'], ['libone', 'liba'], ['libc6'], ['libgcc-s1']])
  })

  it('names the packages that a suite does not have', async () => {
    await expect(libraryClosure(['absent', 'gone'], async () => [])).rejects.toThrow('absent, gone')
  })
})
