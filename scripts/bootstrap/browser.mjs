/**
 * A headless Chromium for the tests of what runs in browsers, from Debian, in `.tools/browser/`; about 130 MB to download.
 *
 *   node scripts/bootstrap/browser.mjs      fetches it when absent and prints how to start it
 *
 * It has a prefix of its own: its dozens of libraries are of no use to the tools.
 */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DebianPrefix } from './debian-prefix.mjs'
import { findMirror } from './debian-sources.mjs'
import { withLock } from './lock.mjs'
import { TOOLS_DIR } from './paths.mjs'
import { BootstrapError, run } from './process.mjs'
import { progress } from './progress.mjs'

const SUITE = 'bookworm'
const LOADER = { x64: 'ld-linux-x86-64.so.2', arm64: 'ld-linux-aarch64.so.1' }
const PACKAGES = ['chromium-headless-shell', 'chromium-common', 'patchelf']

/**
 * @typedef {object} Browser
 * @property {string} path The program.
 * @property {Readonly<Record<string, string>>} env What it needs besides the environment of its caller.
 */

/** @returns {Promise<Browser>} @throws BootstrapError when this host can not fetch it */
export async function ensureBrowser() {
  const dir = join(TOOLS_DIR, 'browser')
  mkdirSync(dir, { recursive: true })
  return withLock(dir, 'browser', async () => {
    const record = join(dir, 'browser.json')
    const known = existsSync(record) ? JSON.parse(readFileSync(record, 'utf8')) : undefined
    if (known !== undefined && existsSync(known.path)) return known
    const browser = await fetchBrowser(dir)
    writeFileSync(record, JSON.stringify(browser, null, 1))
    return browser
  })
}

async function fetchBrowser(dir) {
  const mirror = findMirror()
  if (!mirror) throw new BootstrapError('no Debian mirror in the apt sources of this machine', { hint: 'set FAAS_DEBIAN_MIRROR to the URL of a Debian archive' })
  progress('browser', 'fetching a headless Chromium (about 130 MB)')
  const prefix = new DebianPrefix({ suite: SUITE, toolsDir: dir, mirror })
  await prefix.install(PACKAGES)
  const [libraries, base] = prefix.libDirs
  const loader = join(base, LOADER[process.arch] ?? 'unknown')
  // libpulse looks for a part of itself by a path of its own, which only the variable comes before.
  const path = [libraries, base, join(libraries, 'pulseaudio')].join(':')
  const shipped = join(prefix.root, 'usr/lib/chromium/chromium-headless-shell')
  const patched = `${shipped}-own`
  await run(loader, ['--library-path', path, join(prefix.root, 'usr/bin/patchelf'), '--set-interpreter', loader, '--output', patched, shipped])
  rmSync(shipped)
  return { path: patched, env: { LD_LIBRARY_PATH: path } }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(`${JSON.stringify(await ensureBrowser())}\n`)
}
