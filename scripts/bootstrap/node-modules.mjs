/**
 * Installs npm dependencies only when what is installed differs from
 * package-lock.json. npm's own record of the installed tree
 * (node_modules/.package-lock.json) is the stamp.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { REPO_ROOT } from './paths.mjs'
import { BootstrapError, lastLines, run } from './process.mjs'
import { progress } from './progress.mjs'

const INSTALL_TIMEOUT_MS = 600_000

/**
 * What the lock file asks for and the installed tree does not have.
 * Optional packages of other platforms are never installed and do not count.
 * @param {Record<string, { version?: string, integrity?: string, link?: boolean, optional?: boolean }>} locked
 * @param {typeof locked} installed
 * @returns {string[]} Paths below the repository root.
 */
export function missingPackages(locked, installed) {
  return Object.entries(locked)
    .filter(([path, entry]) => path.startsWith('node_modules/') && !entry.optional)
    .filter(([path, entry]) => {
      const present = installed[path]
      if (!present) return true
      return entry.link ? !present.link : present.version !== entry.version || present.integrity !== entry.integrity
    })
    .map(([path]) => path)
}

/** @returns {Promise<boolean>} Whether anything was installed. */
export async function ensureNodeModules(root = REPO_ROOT) {
  const locked = readPackages(join(root, 'package-lock.json'))
  if (!locked) throw new BootstrapError('package-lock.json is missing', { hint: 'restore it from version control' })
  const installed = readPackages(join(root, 'node_modules', '.package-lock.json'))
  const missing = missingPackages(locked, installed ?? {})
  if (installed && missing.length === 0) return false

  // A clean install in a fresh clone; an existing tree is completed, not thrown away.
  const command = installed ? 'install' : 'ci'
  const what = installed ? `${missing.length} packages differ from the lock file` : 'first installation'
  progress('npm', `${command}: ${what}`)
  const result = await run('npm', [command, '--no-audit', '--no-fund'], { cwd: root, timeoutMs: INSTALL_TIMEOUT_MS, check: false })
  if (result.code !== 0) {
    throw new BootstrapError(`npm ${command} failed: ${lastLines(result.stderr || result.stdout)}`, {
      hint: 'the npm registry must be reachable once; run the command by hand for its full output',
    })
  }
  return true
}

function readPackages(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined
}
