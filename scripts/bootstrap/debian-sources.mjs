/**
 * Finds the Debian mirror this machine already uses, from its own apt sources,
 * in both formats apt knows: deb822 stanzas (`*.sources`) and one line per
 * source (`*.list`). The bootstrap names no mirror of its own.
 * @see sources.list(5)
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

const DEBIAN_SUITE = /^(bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)(-[a-z-]+)?(\/updates)?$/

/**
 * @typedef {{ types: string[], uris: string[], suites: string[], components: string[], signedBy?: string }} AptSource
 * @typedef {{ archive: string, security?: string, signedBy?: string }} DebianMirror
 */

/** Parses deb822 `.sources` text. Disabled stanzas and comments are dropped. @returns {AptSource[]} */
export function parseDeb822(text) {
  const sources = []
  for (const stanza of text.split(/\n[ \t]*\n/)) {
    const fields = parseFields(stanza)
    if (fields.size === 0 || /^(no|false|0)$/i.test(fields.get('enabled') ?? '')) continue
    const words = (name) => (fields.get(name) ?? '').split(/\s+/).filter(Boolean)
    const source = {
      types: words('types'),
      uris: words('uris'),
      suites: words('suites'),
      components: words('components'),
    }
    const signedBy = keyringPath(fields.get('signed-by'))
    sources.push(signedBy === undefined ? source : { ...source, signedBy })
  }
  return sources
}

/** Parses one-line `.list` text. @returns {AptSource[]} */
export function parseOneLine(text) {
  const sources = []
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*$/, '').trim()
    const match = /^(deb|deb-src)\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)(?:\s+(.*))?$/.exec(line)
    if (!match) continue
    const [, type, options = '', uri, suite, components = ''] = match
    const source = {
      types: [type],
      uris: [uri],
      suites: [suite],
      components: components.split(/\s+/).filter(Boolean),
    }
    const signedBy = keyringPath(/(?:^|\s)signed-by=(\S+)/i.exec(options)?.[1])
    sources.push(signedBy === undefined ? source : { ...source, signedBy })
  }
  return sources
}

/**
 * Picks the archive (and, where listed, the security archive) that carries Debian suites.
 * @param {AptSource[]} sources @returns {DebianMirror | undefined}
 */
export function pickMirror(sources) {
  const debian = sources.filter(
    (source) => source.types.includes('deb') && source.suites.some((suite) => DEBIAN_SUITE.test(suite)),
  )
  const isSecurity = (source) => source.suites.every((suite) => /-security$|\/updates$/.test(suite))
  const first = (list) => {
    for (const source of list) {
      const uri = source.uris.find((candidate) => /^(https?|file|mirror\+https?):/.test(candidate))
      if (uri) return { uri: uri.replace(/\/+$/, ''), signedBy: source.signedBy }
    }
    return undefined
  }
  const archive = first(debian.filter((source) => !isSecurity(source)))
  if (!archive) return undefined
  const security = first(debian.filter(isSecurity))
  return {
    archive: archive.uri,
    ...(security ? { security: security.uri } : {}),
    ...(archive.signedBy ? { signedBy: archive.signedBy } : {}),
  }
}

/**
 * Reads the machine's sources. `FAAS_DEBIAN_MIRROR` (and `FAAS_DEBIAN_SECURITY_MIRROR`)
 * override them, for hosts that are not Debian.
 * @param {{ etc?: string, env?: NodeJS.ProcessEnv }} [options]
 * @returns {DebianMirror | undefined}
 */
export function findMirror({ etc = '/etc/apt', env = process.env } = {}) {
  if (env.FAAS_DEBIAN_MIRROR) {
    const security = env.FAAS_DEBIAN_SECURITY_MIRROR
    return { archive: env.FAAS_DEBIAN_MIRROR.replace(/\/+$/, ''), ...(security ? { security } : {}) }
  }
  const files = ['sources.list', ...list(join(etc, 'sources.list.d')).map((name) => join('sources.list.d', name))]
  const sources = files.flatMap((name) => {
    if (name.endsWith('.sources')) return parseDeb822(read(join(etc, name)))
    if (name.endsWith('.list')) return parseOneLine(read(join(etc, name)))
    return []
  })
  return pickMirror(sources)
}

function parseFields(stanza) {
  const fields = new Map()
  let current
  for (const line of stanza.split('\n')) {
    if (line.startsWith('#')) continue
    const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line)
    if (field) {
      current = field[1].toLowerCase()
      fields.set(current, field[2].trim())
    } else if (current && /^[ \t]/.test(line)) {
      fields.set(current, `${fields.get(current)}\n${line.trim()}`)
    }
  }
  return fields
}

/** A Signed-By may hold a whole key inline; only a path can be handed on. */
function keyringPath(value) {
  return value?.startsWith('/') ? value : undefined
}

function list(dir) {
  try {
    return readdirSync(dir).sort()
  } catch (cause) {
    if (cause.code === 'ENOENT') return []
    throw cause
  }
}

function read(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    // A machine may have only one of the two formats.
    if (cause.code === 'ENOENT') return ''
    throw cause
  }
}
