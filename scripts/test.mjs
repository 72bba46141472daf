/**
 * `npm test`: brings up everything the tests need (a real Docker Engine too),
 * runs the TypeScript and the Rust tests, and closes with one line of counts.
 *
 *   npm test                      everything
 *   npm test -- packages/core     arguments go to vitest; `agent` runs the Rust tests alone
 *
 * With CI=true nothing may be missing or skipped.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { IMAGE_NAMES } from './bootstrap/base-image.mjs'
import { rustEnvironment } from './bootstrap/build.mjs'
import { stopDocker } from './bootstrap/dockerd.mjs'
import { prepare } from './bootstrap/index.mjs'
import { REPO_ROOT } from './bootstrap/paths.mjs'
import { run, runVisible } from './bootstrap/process.mjs'
import { progress } from './bootstrap/progress.mjs'
import { addCounts, countCargo, countVitest, isSuccess, noTests, slowestFiles, summaryLine } from './bootstrap/test-summary.mjs'

const CARGO_TIMEOUT_MS = 900_000
const SLOWEST_SHOWN = 15
const startedAt = performance.now()
const ci = process.env.CI === 'true'
const args = process.argv.slice(2)
const agentOnly = args.length > 0 && args.every((arg) => arg === 'agent')

let prepared
let counts = noTests()
/** @type {string[]} */
let slowest = []
try {
  prepared = await prepare({ images: IMAGE_NAMES, docker: true, buildRequired: false })
  if (!prepared.built) counts = addCounts(counts, { ...noTests(), failed: 1 })
  if (!agentOnly) counts = addCounts(counts, await runVitest(prepared.env))
  if (args.length === 0 || agentOnly) counts = addCounts(counts, await runCargo())
} catch (cause) {
  progress('test', `stopped: ${cause.message}${cause.hint ? ` (${cause.hint})` : ''}`)
  counts = addCounts(counts, { ...noTests(), failed: 1 })
} finally {
  if (prepared?.docker?.started) counts = addCounts(counts, await endDocker())
}

if (slowest.length > 1) progress('test', `the ${slowest.length} slowest files:\n${slowest.join('\n')}`)
progress('test', `${((performance.now() - startedAt) / 60_000).toFixed(1)} minutes in all`)
for (const name of counts.skippedNames) progress('test', `skipped: ${name}`)
if (ci && counts.skipped > 0) progress('test', 'with CI=true a skipped test is a failure')
if (counts.passed === 0) progress('test', 'no test ran')
process.stdout.write(`\n${summaryLine(counts)}\n`)
process.exitCode = isSuccess(counts, { ci }) ? 0 : 1

async function runVitest(env) {
  const work = mkdtempSync(join(tmpdir(), 'faas-test-report-'))
  const report = join(work, 'vitest.json')
  try {
    const vitest = join(REPO_ROOT, 'node_modules/.bin/vitest')
    const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
    const exitCode = await runVisible(vitest, ['run', ...reporters, ...args], { cwd: REPO_ROOT, env })
    const said = readReport(report)
    slowest = slowestFiles(said, { root: REPO_ROOT, count: SLOWEST_SHOWN })
    return countVitest(said, exitCode)
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

function readReport(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'))
  } catch (cause) {
    progress('test', `vitest left no readable report: ${cause.message}`)
    return undefined
  }
}

async function runCargo() {
  const env = await rustEnvironment()
  progress('test', 'cargo test (guest agent)')
  const { code, stdout, stderr } = await run('cargo', ['test', '--offline', '--locked'], {
    cwd: join(REPO_ROOT, 'agent'),
    env,
    timeoutMs: CARGO_TIMEOUT_MS,
    check: false,
  })
  const said = stdout.split('\n').filter((line) => /^test result|FAILED|panicked|^error/.test(line))
  process.stdout.write(`${(code === 0 ? said : [stdout, stderr]).join('\n')}\n`)
  return countCargo(stdout, code ?? 1)
}

/** An engine that leaves something behind is a failure like any other. */
async function endDocker() {
  const left = await stopDocker()
  const clean = left.processes.length === 0 && left.mounts.length === 0 && left.cgroups.length === 0 && !left.bridge && !left.runDir
  if (!clean) progress('docker', `left behind: ${JSON.stringify(left)}`)
  return { ...noTests(), failed: clean ? 0 : 1 }
}
