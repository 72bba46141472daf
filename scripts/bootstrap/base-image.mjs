/**
 * Builds the offline images as OCI layouts under `.tools/images/<name>`.
 *
 *   node scripts/bootstrap/base-image.mjs [base|python|node …] [--all] [--refresh]
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { DebianPrefix } from './debian-prefix.mjs'
import { findMirror } from './debian-sources.mjs'
import { baseContents, certificateBundle, nodeContents, pythonContents } from './image-contents.mjs'
import { withLock } from './lock.mjs'
import { writeOciLayout } from './oci-layout.mjs'
import { IMAGES_DIR, TOOLS_DIR } from './paths.mjs'
import { BootstrapError } from './process.mjs'
import { progress } from './progress.mjs'
import { ensureTools } from './tools.mjs'

/** Raised when the contents change for the same inputs. */
const BUILD_FORMAT = 2

const BUILDERS = { base: baseContents, python: pythonContents, node: nodeContents }
export const IMAGE_NAMES = Object.keys(BUILDERS)

/**
 * @param {readonly string[]} names Of IMAGE_NAMES.
 * @param {{ refresh?: boolean }} [options]
 * @returns {Promise<{ name: string, ref: string, digest: string, dir: string, sizeBytes: number, built: boolean }[]>}
 */
export async function ensureImages(names, { refresh = false } = {}) {
  const unknown = names.filter((name) => !IMAGE_NAMES.includes(name))
  if (unknown.length > 0) throw new BootstrapError(`no such image: ${unknown.join(', ')} (there are ${IMAGE_NAMES.join(', ')})`)
  const { tools } = await ensureTools({ names: ['busybox'], required: true })
  const busybox = tools.find(({ name }) => name === 'busybox')
  const results = []
  for (const name of names) {
    const key = inputsKey(name, busybox)
    const cached = refresh ? undefined : readStamp(name, key)
    if (cached) results.push({ ...cached, built: false })
    else {
      mkdirSync(IMAGES_DIR, { recursive: true })
      results.push(await withLock(TOOLS_DIR, `image-${name}`, () => build(name, key, busybox.path, refresh)))
    }
  }
  return results
}

async function build(name, key, busybox, refresh) {
  const cached = refresh ? undefined : readStamp(name, key)
  if (cached) return { ...cached, built: false } // another process built it while this one waited
  const startedAt = performance.now()
  const certificates = await findCertificates()
  const inputs = { busybox, certificates, ...(name === 'python' ? { prefix: openPrefix('bookworm') } : {}) }
  const contents = await BUILDERS[name](inputs)
  try {
    const dir = join(IMAGES_DIR, name)
    const { digest, sizeBytes } = await writeOciLayout({ dir, ...contents })
    const stamp = { name, ref: contents.ref, digest, dir, sizeBytes }
    writeFileSync(stampFile(name), JSON.stringify({ key, ...stamp }, null, 2) + '\n')
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(1)
    progress('images', `${contents.ref} ${(sizeBytes / 1e6).toFixed(1)} MB ${digest.slice(0, 19)} in ${seconds} s`)
    return { ...stamp, built: true }
  } finally {
    contents.dispose()
  }
}

/** From Debian's package, not from the host: a host's own added authorities are not the image's business. */
async function findCertificates() {
  try {
    const prefix = openPrefix('sid')
    await prefix.install(['ca-certificates'])
    return certificateBundle(prefix.root)
  } catch (cause) {
    progress('images', `without CA certificates: ${cause.message}`)
    return undefined
  }
}

function openPrefix(suite) {
  const mirror = findMirror()
  if (!mirror) {
    throw new BootstrapError('no Debian mirror in the apt sources of this machine', { hint: 'set FAAS_DEBIAN_MIRROR' })
  }
  return new DebianPrefix({ suite, toolsDir: TOOLS_DIR, mirror })
}

function inputsKey(name, busybox) {
  const node = statSync(realpathSync(process.execPath))
  const inputs = [BUILD_FORMAT, name, busybox.sha256, name === 'node' ? [process.version, node.size] : []]
  return createHash('sha256').update(JSON.stringify(inputs)).digest('hex').slice(0, 16)
}

function stampFile(name) {
  return join(IMAGES_DIR, `${name}.stamp.json`)
}

function readStamp(name, key) {
  if (!existsSync(stampFile(name)) || !existsSync(join(IMAGES_DIR, name, 'index.json'))) return undefined
  const { key: stampedKey, ...stamp } = JSON.parse(readFileSync(stampFile(name), 'utf8'))
  return stampedKey === key && stamp.dir === join(IMAGES_DIR, name) ? stamp : undefined
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const args = process.argv.slice(2)
  const named = args.filter((arg) => !arg.startsWith('--'))
  const names = args.includes('--all') ? IMAGE_NAMES : named.length > 0 ? named : ['base']
  try {
    for (const { ref, dir, digest, built } of await ensureImages(names, { refresh: args.includes('--refresh') })) {
      progress('images', `${ref} ${built ? 'built' : 'ready'} at ${dir} (${digest.slice(0, 19)})`)
    }
  } catch (cause) {
    progress('images', `failed: ${cause.message}${cause.hint ? ` (${cause.hint})` : ''}`)
    process.exitCode = 1
  }
}
