/**
 * Debian control stanzas and the closure of shared libraries a package needs.
 *
 * Only library packages are followed: a tool unpacked into a private prefix
 * needs its shared objects, not systemd, debconf or perl.
 * @see deb-control(5), Debian policy chapter 7
 */
import { BootstrapError } from './process.mjs'

const LIBRARY = /^(lib(?!.*-(dev|perl|java|doc|dbg|bin|data|common)$)[a-z0-9.+-]+|zlib1g)$/

/**
 * @typedef {{ name: string, version: string, sha256: string, depends: string[][], size: number }} DebPackage
 *   `depends` is a list of alternatives: every inner list needs one of its names.
 */

/** Parses the output of `apt-cache show` (or a Packages file). @returns {DebPackage[]} */
export function parsePackages(text) {
  const packages = []
  for (const stanza of text.split(/\n\n+/)) {
    const field = (name) => new RegExp(`^${name}:[ \\t]*(.*(?:\\n[ \\t].*)*)`, 'm').exec(stanza)?.[1].trim()
    const name = field('Package')
    const version = field('Version')
    if (!name || !version) continue
    const depends = [field('Pre-Depends'), field('Depends')].filter(Boolean).join(', ')
    packages.push({
      name,
      version,
      sha256: field('SHA256') ?? '',
      size: Number(field('Size') ?? 0),
      depends: parseDepends(depends),
    })
  }
  return packages
}

/** `a (>= 1), b | c:any` → `[['a'], ['b', 'c']]`. @returns {string[][]} */
export function parseDepends(text) {
  return text
    .split(',')
    .map((group) =>
      group
        .split('|')
        .map((one) => one.trim().replace(/[\s(:].*$/s, ''))
        .filter(Boolean),
    )
    .filter((group) => group.length > 0)
}

/**
 * Walks library dependencies breadth-first.
 * @param {readonly string[]} roots Packages asked for by name; each must exist.
 * @param {(names: string[]) => Promise<DebPackage[]>} lookup One call per level; unknown names are left out.
 * @returns {Promise<DebPackage[]>} Roots and libraries, by name, each once.
 * @throws BootstrapError naming the roots that the suite does not have.
 */
export async function libraryClosure(roots, lookup) {
  const found = new Map()
  const asked = new Set()
  let wanted = [...roots]
  while (wanted.length > 0) {
    for (const name of wanted) asked.add(name)
    const level = await lookup(wanted)
    for (const item of level) if (!found.has(item.name)) found.set(item.name, item)
    const next = new Set()
    for (const item of level) {
      for (const group of item.depends) {
        // First alternative wins, as in apt; the rest are tried only when it is no real package.
        const settled = group.some((name) => found.has(name))
        if (settled) continue
        const candidate = group.find((name) => LIBRARY.test(name) && !asked.has(name))
        if (candidate) next.add(candidate)
      }
    }
    wanted = [...next]
  }
  const absent = roots.filter((name) => !found.has(name))
  if (absent.length > 0) throw new BootstrapError(`no such package: ${absent.join(', ')}`)
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}
