/**
 * Fetches and proves every tool of the catalog, once.
 *
 * Result: executables in `.tools/bin`, and `.tools/tools.json` saying where
 * each came from, which version it is, and what proved it.
 *
 *   node scripts/bootstrap/tools.mjs [name …] [--refresh] [--json]
 */
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { join, sep } from 'node:path'
import { pathToFileURL } from 'node:url'
import { DebianPrefix, sha256 } from './debian-prefix.mjs'
import { findMirror } from './debian-sources.mjs'
import { withLock } from './lock.mjs'
import { BIN_DIR, pathWithTools, TOOLS_DIR, TOOLS_MANIFEST } from './paths.mjs'
import { BootstrapError, run, which } from './process.mjs'
import { progress } from './progress.mjs'
import { proveCriu, proveRuntime } from './proof.mjs'
import { cveNotes, TOOLS } from './tool-catalog.mjs'
import { patchTool } from './tool-patch.mjs'
import { linkTool } from './tool-wrapper.mjs'

const MANIFEST_FORMAT = 1
const RETRY_MS = 600_000

/**
 * @typedef {{ name: string, version: string, path: string, source: string, realPath: string,
 *   sha256: string, sizeBytes: number, mtimeMs: number, catalog: string, proof?: string, patch?: string, cveNotes?: string[] }} ToolRecord
 * @typedef {{ name: string, reason: string, lost: string, hint?: string, triedAt: number, tried: string }} MissingTool
 * @typedef {{ format: number, tools: ToolRecord[], missing: MissingTool[] }} ToolsManifest
 */

/**
 * Makes every named tool (default: all) present; what is present and unchanged costs one stat.
 * @param {{ names?: string[], refresh?: boolean, required?: boolean }} [options]
 *   `required` (default: CI=true) makes one missing tool an error; otherwise it is reported in `missing`.
 * @returns {Promise<ToolsManifest>}
 */
export async function ensureTools({ names, refresh = false, required = process.env.CI === 'true' } = {}) {
  const specs = TOOLS.filter((spec) => !names || names.includes(spec.name))
  const unknown = (names ?? []).filter((name) => !TOOLS.some((spec) => spec.name === name))
  if (unknown.length > 0) throw new BootstrapError(`no such tool in the catalog: ${unknown.join(', ')}`)

  let manifest = readManifest()
  const stale = (spec) => refresh || !(isCurrent(manifest, spec) || (!required && isKnownMissing(manifest, spec)))
  if (specs.some(stale)) {
    mkdirSync(BIN_DIR, { recursive: true })
    manifest = await withLock(TOOLS_DIR, 'tools', () => fetchStale(specs, stale))
  }
  const missing = manifest.missing.filter(({ name }) => specs.some((spec) => spec.name === name))
  if (required && missing.length > 0) {
    const list = missing.map(({ name, reason }) => `${name} (${reason})`).join('; ')
    throw new BootstrapError(`tools missing: ${list}`, { hint: missing[0].hint })
  }
  return manifest
}

/** @returns {ToolsManifest} Empty when nothing was fetched yet. */
export function readManifest() {
  if (!existsSync(TOOLS_MANIFEST)) return { format: MANIFEST_FORMAT, tools: [], missing: [] }
  const manifest = JSON.parse(readFileSync(TOOLS_MANIFEST, 'utf8'))
  return manifest.format === MANIFEST_FORMAT ? manifest : { format: MANIFEST_FORMAT, tools: [], missing: [] }
}

async function fetchStale(specs, stale) {
  const mirror = findMirror()
  const prefixes = new Map()
  const prefix = (suite) => {
    if (!mirror) {
      throw new BootstrapError('no Debian mirror in the apt sources of this machine', {
        hint: 'set FAAS_DEBIAN_MIRROR to the URL of a Debian archive, or install the tool with the package manager of this system',
      })
    }
    if (!prefixes.has(suite)) prefixes.set(suite, new DebianPrefix({ suite, toolsDir: TOOLS_DIR, mirror }))
    return prefixes.get(suite)
  }
  await warmFirstChoices(specs.filter(stale), prefix)

  let manifest = readManifest()
  for (const spec of specs) {
    if (!stale(spec)) continue
    const outcome = await fetchOne(spec, prefix)
    manifest = {
      ...manifest,
      tools: [...manifest.tools.filter(({ name }) => name !== spec.name), ...(outcome.record ? [outcome.record] : [])],
      missing: [...manifest.missing.filter(({ name }) => name !== spec.name), ...(outcome.missing ? [outcome.missing] : [])],
    }
    // After every tool, so that an interrupted run goes on where it stopped.
    writeManifest(manifest)
  }
  return manifest
}

/** One apt call per suite, side by side, downloads what the first choices need; failures show up per tool later. */
async function warmFirstChoices(specs, prefix) {
  const bySuite = new Map()
  for (const spec of specs) {
    if (spec.preferHost && which(spec.name, hostPath())) continue
    const { suite, packages } = spec.from[0]
    bySuite.set(suite, [...new Set([...(bySuite.get(suite) ?? ['patchelf']), ...packages])])
  }
  const warm = async ([suite, packages]) => {
    progress('tools', `${suite}: ${packages.length} packages and their libraries (signed index, verified hashes)`)
    try {
      await prefix(suite).install(packages)
    } catch (cause) {
      progress('tools', `${suite}: ${cause.message}; trying tool by tool`)
    }
  }
  await Promise.all([...bySuite].map(warm))
}

async function fetchOne(spec, prefix) {
  const host = spec.preferHost ? which(spec.name, hostPath()) : undefined
  if (host) return { record: await adoptHost(spec, host) }
  const reasons = []
  let hint
  for (const candidate of spec.from) {
    try {
      const record = await fetchCandidate(spec, candidate, prefix(candidate.suite))
      progress('tools', `${spec.name} ${record.version} (${record.source})${record.proof ? `: ${record.proof}` : ''}`)
      return { record }
    } catch (cause) {
      reasons.push(`${candidate.suite}: ${cause.message}`)
      hint ??= cause.hint
      progress('tools', `${spec.name} from ${candidate.suite} is not usable: ${cause.message}`)
    }
  }
  rmSync(join(BIN_DIR, spec.name), { force: true })
  const missing = { name: spec.name, reason: reasons.join('; '), lost: spec.lost, ...(hint ? { hint } : {}) }
  return { missing: { ...missing, triedAt: Date.now(), tried: attemptKey(spec) } }
}

async function fetchCandidate(spec, candidate, prefix) {
  const { packages } = await prefix.install(candidate.packages)
  const real = await prefix.adopt(candidate.path)
  const patch = spec.patch ? await patchTool(real, spec.patch) : undefined
  const version = packages.find(({ name }) => name === candidate.packages[0]).version
  const path = linkTool({ binDir: BIN_DIR, name: spec.name, real, root: prefix.root, wrapper: spec.wrapper })
  return record(spec, { path, real, version, patch, source: `debian ${candidate.suite} ${candidate.packages[0]}` })
}

async function adoptHost(spec, host) {
  const path = linkTool({ binDir: BIN_DIR, name: spec.name, real: host, root: '/' })
  const { stdout, stderr } = await run(path, spec.versionArgs ?? ['--version'], { check: false })
  const version = /\d+(\.\d+)+[\w+~-]*/.exec(stdout || stderr)?.[0] ?? 'unknown'
  progress('tools', `${spec.name} ${version} (the host's ${host})`)
  return record(spec, { path, real: host, version, source: `host ${host}` })
}

async function record(spec, { path, real, version, patch, source }) {
  const env = { ...process.env, PATH: pathWithTools() }
  if (spec.versionArgs) await run(path, spec.versionArgs, { env, timeoutMs: 20_000 })
  const proof = await prove(spec, path, env)
  const { size, mtimeMs } = statSync(real)
  const notes = cveNotes(spec.name, version)
  return {
    name: spec.name,
    version,
    path,
    source,
    ...(notes ? { cveNotes: notes } : {}),
    ...(patch ? { patch } : {}),
    ...(proof ? { proof } : {}),
    realPath: real,
    sha256: sha256(real),
    sizeBytes: size,
    mtimeMs,
    catalog: catalogKey(spec),
  }
}

async function prove(spec, file, env) {
  if (!spec.proof) return undefined
  if (process.getuid() !== 0) return 'not proved: needs root'
  if (spec.proof === 'criu-check') return proveCriu({ file, env })
  return proveRuntime({ name: spec.name, file, busybox: join(BIN_DIR, 'busybox'), env })
}

function isCurrent(manifest, spec) {
  const entry = manifest.tools.find(({ name }) => name === spec.name)
  if (!entry || entry.catalog !== catalogKey(spec)) return false
  if (!lstatSync(entry.path, { throwIfNoEntry: false })) return false
  const stat = statSync(entry.realPath, { throwIfNoEntry: false })
  return stat !== undefined && stat.size === entry.sizeBytes && stat.mtimeMs === entry.mtimeMs
}

/** A tool that just failed here is not tried again on every start: that would cost seconds each time. */
function isKnownMissing(manifest, spec) {
  const entry = manifest.missing.find(({ name }) => name === spec.name)
  return entry !== undefined && entry.tried === attemptKey(spec) && Date.now() - entry.triedAt < RETRY_MS
}

/** Another kernel or another user may well succeed. */
function attemptKey(spec) {
  return `${catalogKey(spec)} ${release()} ${process.getuid()}`
}

/** Changes when the catalog's entry or the directory changes: patched programs hold absolute paths. */
function catalogKey(spec) {
  return createHash('sha256').update(JSON.stringify([MANIFEST_FORMAT, TOOLS_DIR, process.arch, spec])).digest('hex').slice(0, 16)
}

function writeManifest(manifest) {
  const next = `${TOOLS_MANIFEST}.new`
  writeFileSync(next, JSON.stringify(manifest, null, 2) + '\n')
  renameSync(next, TOOLS_MANIFEST)
}

/** The host's PATH without our own directory, so that a tool is never taken for the host's. */
function hostPath() {
  return pathWithTools()
    .split(':')
    .filter((dir) => dir !== BIN_DIR && !dir.startsWith(TOOLS_DIR + sep))
    .join(':')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const args = process.argv.slice(2)
  const names = args.filter((arg) => !arg.startsWith('--'))
  const options = { refresh: args.includes('--refresh'), ...(names.length > 0 ? { names } : {}) }
  try {
    const manifest = await ensureTools(options)
    if (args.includes('--json')) process.stdout.write(JSON.stringify(manifest, null, 2) + '\n')
    for (const { name, reason, lost, hint } of manifest.missing) {
      progress('tools', `MISSING ${name}: ${reason}. Without it: ${lost}.${hint ? ` To get it: ${hint}.` : ''}`)
    }
  } catch (cause) {
    progress('tools', `failed: ${cause.message}${cause.hint ? ` (${cause.hint})` : ''}`)
    process.exitCode = 1
  }
}
