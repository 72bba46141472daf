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

  progress('npm', installed ? `${missing.length} packages differ from the lock file` : 'installing dependencies')
  // Not `npm ci`: it refuses a lock file without the optional packages of other platforms, which a registry
  // that does not serve them all produces. What it promises, exactly the locked versions, is checked below.
  const result = await run('npm', ['install', '--no-save', '--no-audit', '--no-fund'], { cwd: root, timeoutMs: INSTALL_TIMEOUT_MS, check: false })
  if (result.code !== 0) {
    throw new BootstrapError(`npm install failed: ${lastLines(result.stderr || result.stdout)}`, {
      hint: 'the npm registry must be reachable once; run the command by hand for its full output',
    })
  }
  const stillMissing = missingPackages(locked, readPackages(join(root, 'node_modules', '.package-lock.json')) ?? {})
  if (stillMissing.length > 0) {
    throw new BootstrapError(`npm installed other versions than the lock file names: ${stillMissing.slice(0, 5).join(', ')}`, {
      hint: 'package.json and package-lock.json disagree; run npm install and commit the lock file',
    })
  }
  return true
}

function readPackages(file) {
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).packages : undefined
}
