import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { findMirror, parseDeb822, parseOneLine, pickMirror } from './debian-sources.mjs'

const DEB822 = `Types: deb
# http://old.example/archive
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
`

const work = []
afterEach(() => {
  for (const dir of work.splice(0)) rmSync(dir, { recursive: true, force: true })
})

function etc(files) {
  const dir = mkdtempSync(join(tmpdir(), 'faas-apt-'))
  work.push(dir)
  mkdirSync(join(dir, 'sources.list.d'))
  for (const [name, content] of Object.entries(files)) writeFileSync(join(dir, name), content)
  return dir
}

describe('apt sources', () => {
  it('reads deb822 stanzas, without comments and disabled ones', () => {
    expect(parseDeb822(DEB822)).toEqual([
      {
        types: ['deb'],
        uris: ['http://mirror.example/debian'],
        suites: ['bookworm', 'bookworm-updates'],
        components: ['main'],
        signedBy: '/usr/share/keyrings/debian-archive-keyring.gpg',
      },
      { types: ['deb'], uris: ['http://mirror.example/debian-security'], suites: ['bookworm-security'], components: ['main'] },
    ])
  })

  it('reads continuation lines and ignores a key given inline', () => {
    const [source] = parseDeb822('Types: deb deb-src\nURIs: http://a.example/debian\n http://b.example/debian\nSuites: sid\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n')
    expect(source).toEqual({ types: ['deb', 'deb-src'], uris: ['http://a.example/debian', 'http://b.example/debian'], suites: ['sid'], components: ['main'] })
  })

  it('reads the one-line format with and without options', () => {
    expect(
      parseOneLine('# deb http://no.example x main\ndeb http://a.example/debian trixie main contrib # note\ndeb [arch=amd64 signed-by=/k.gpg] https://b.example/debian sid main\nnonsense\n'),
    ).toEqual([
      { types: ['deb'], uris: ['http://a.example/debian'], suites: ['trixie'], components: ['main', 'contrib'] },
      { types: ['deb'], uris: ['https://b.example/debian'], suites: ['sid'], components: ['main'], signedBy: '/k.gpg' },
    ])
  })

  it('picks archive and security archive, and no third-party source', () => {
    const vendor = parseOneLine('deb https://vendor.example/apt nodistro main')
    expect(pickMirror([...vendor, ...parseDeb822(DEB822)])).toEqual({
      archive: 'http://mirror.example/debian',
      security: 'http://mirror.example/debian-security',
      signedBy: '/usr/share/keyrings/debian-archive-keyring.gpg',
    })
    expect(pickMirror(vendor)).toBeUndefined()
  })

  it('finds the mirror in either format on disk, and FAAS_DEBIAN_MIRROR beats both', () => {
    expect(findMirror({ etc: etc({ 'sources.list': 'deb http://one.example/debian/ bookworm main\n' }), env: {} })).toEqual({ archive: 'http://one.example/debian' })
    const both = etc({ 'sources.list': '', 'sources.list.d/debian.sources': DEB822, 'sources.list.d/x.list.disabled': 'deb http://x.example/debian sid main\n' })
    expect(findMirror({ etc: both, env: {} })?.archive).toBe('http://mirror.example/debian')
    expect(findMirror({ etc: both, env: { FAAS_DEBIAN_MIRROR: 'http://mine.example/debian/' } })).toEqual({ archive: 'http://mine.example/debian' })
    expect(findMirror({ etc: etc({}), env: {} })).toBeUndefined()
  })
})
