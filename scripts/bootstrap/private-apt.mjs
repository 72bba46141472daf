/**
 * apt in a private root: the host's mirror, proxy and keyring, but its own
 * state, cache and sources, so the host's package system is neither read nor
 * changed. apt itself carries the chain of trust: InRelease signature →
 * Packages hash → package hash.
 *
 * Invariants
 *  I1  Nothing is installed: packages are downloaded and unpacked, no maintainer script runs.
 *  I2  apt hooks of the host (`APT::Update::Post-Invoke` …) never run: only its `Acquire` settings are taken over.
 *  I3  An unsigned or wrongly signed archive fails; nothing here relaxes apt's verification.
 */
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parsePackages } from './debian-control.mjs'
import { withLock } from './lock.mjs'
import { BootstrapError, run, which } from './process.mjs'

const DEFAULT_KEYRINGS = [
  '/usr/share/keyrings/debian-archive-keyring.gpg',
  '/usr/share/keyrings/debian-archive-keyring.pgp',
]
const UPDATE_TIMEOUT_MS = 300_000
const INDEX_AGE_MS_MAX = 6 * 3_600_000

/**
 * Opens a private apt for one suite; its index is fetched when it is absent or old.
 * @param {{ suite: string, dir: string, mirror: import('./debian-sources.mjs').DebianMirror }} options
 */
export async function openApt({ suite, dir, mirror }) {
  for (const tool of ['apt-get', 'apt-cache', 'apt-config', 'dpkg-deb']) {
    if (!which(tool)) {
      throw new BootstrapError(`${tool} is not on this machine`, {
        hint: 'the bootstrap fetches tools through apt; on another distribution install runc, crun, criu, nftables and busybox with its package manager',
      })
    }
  }
  const env = { ...process.env, APT_CONFIG: await writeConfig({ suite, dir, mirror }), LC_ALL: 'C.UTF-8' }
  const stamp = join(dir, 'updated')
  const shown = new Map()
  // apt refuses a second update of one index while the first runs, and two parts of the set-up may open a suite at once.
  const exclusively = (task) => withLock(dir, `apt-${suite}`, task)
  const fetchIndex = async () => {
    shown.clear()
    await run('apt-get', ['update', '-q'], { env, timeoutMs: UPDATE_TIMEOUT_MS })
    writeFileSync(stamp, '')
  }
  const update = () => exclusively(fetchIndex)
  await exclusively(async () => {
    if (isOlderThan(stamp, INDEX_AGE_MS_MAX)) await fetchIndex()
  })

  return {
    suite,
    /** Fetches the signed index again; for when the mirror no longer has what an old index names. */
    update,
    /** Candidate versions of the named packages; names the suite does not have are left out. */
    async show(names) {
      const unknown = names.filter((name) => !shown.has(name))
      if (unknown.length > 0) {
        for (const name of unknown) shown.set(name, undefined)
        const { stdout } = await run('apt-cache', ['show', '--no-all-versions', ...unknown], { env, check: false })
        for (const item of parsePackages(stdout)) shown.set(item.name, item)
      }
      return names.map((name) => shown.get(name)).filter((item) => item !== undefined)
    },
    /**
     * Downloads one exact version of each package; apt checks the hash of each.
     * @returns {Promise<Map<string, string>>} package name → .deb file
     */
    async download(packages) {
      if (packages.length === 0) return new Map()
      const cache = join(dir, 'debs')
      mkdirSync(cache, { recursive: true })
      const missing = packages.filter((item) => !existsSync(debFile(cache, item)))
      if (missing.length > 0) {
        const wanted = missing.map((item) => `${item.name}=${item.version}`)
        await run('apt-get', ['download', '-q', ...wanted], { cwd: cache, env, timeoutMs: 600_000 })
      }
      return new Map(packages.map((item) => [item.name, locate(cache, item)]))
    },
  }
}

async function writeConfig({ suite, dir, mirror }) {
  for (const sub of ['lists/partial', 'cache/archives/partial']) mkdirSync(join(dir, sub), { recursive: true })
  const keyring = [mirror.signedBy, ...DEFAULT_KEYRINGS].find((file) => file && existsSync(file))
  if (!keyring) {
    throw new BootstrapError('no Debian archive keyring on this machine', {
      hint: 'install debian-archive-keyring; without it no download can be verified',
    })
  }
  const sources = join(dir, 'sources.list')
  writeFileSync(sources, sourceLines({ suite, mirror, keyring }).join('\n') + '\n')
  writeFileSync(join(dir, 'status'), '')

  const { stdout } = await run('apt-config', ['dump'])
  const inherited = stdout.split('\n').filter((line) => /^Acquire::/.test(line) && !/IndexTargets|Changelogs/.test(line))
  const config = [
    ...inherited, // I2
    `Dir::State "${dir}";`,
    `Dir::State::lists "${join(dir, 'lists')}";`,
    `Dir::State::status "${join(dir, 'status')}";`,
    `Dir::Cache "${join(dir, 'cache')}";`,
    'Dir::Cache::srcpkgcache "";', // 50 MB that only an installed-package database needs
    `Dir::Etc::main "/dev/null";`,
    `Dir::Etc::parts "/dev/null";`,
    `Dir::Etc::preferences "/dev/null";`,
    `Dir::Etc::preferencesparts "/dev/null";`,
    `Dir::Etc::sourcelist "${sources}";`,
    `Dir::Etc::sourceparts "/dev/null";`,
    // The root is ours alone, and an unprivileged _apt could not write into it.
    `APT::Sandbox::User "root";`,
    'Acquire::Languages "none";',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";',
    'Acquire::GzipIndexes "true";',
    'Acquire::Retries "3";',
  ]
  const file = join(dir, 'apt.conf')
  writeFileSync(file, config.join('\n') + '\n')
  return file
}

/** The suite itself plus its security and backports archives where they exist. */
export function sourceLines({ suite, mirror, keyring }) {
  const line = (uri, name) => `deb [signed-by=${keyring}] ${uri} ${name} main`
  if (suite === 'sid') return [line(mirror.archive, 'sid')]
  if (suite.endsWith('-backports')) return [line(mirror.archive, suite)]
  const lines = [line(mirror.archive, suite)]
  if (mirror.security) lines.push(line(mirror.security, `${suite}-security`))
  return lines
}

function isOlderThan(stamp, ageMs) {
  const stat = statSync(stamp, { throwIfNoEntry: false })
  return stat === undefined || Date.now() - stat.mtimeMs > ageMs
}

/** apt names files `name_version_arch.deb` with the epoch's colon as %3a. */
function debFile(cache, item) {
  const prefix = `${item.name}_${item.version.replaceAll(':', '%3a')}_`
  const name = readdirSync(cache).find((entry) => entry.startsWith(prefix) && entry.endsWith('.deb'))
  return name ? join(cache, name) : join(cache, `${prefix}absent.deb`)
}

function locate(cache, item) {
  const file = debFile(cache, item)
  if (!existsSync(file)) throw new BootstrapError(`apt-get download left no file for ${item.name} ${item.version}`)
  return file
}
