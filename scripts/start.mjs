/**
 * `npm start`: sets the machine up, starts the gateway, runs one hello through
 * it and stays in the foreground until Ctrl-C. Flags and FAAS_ variables go to
 * the gateway (docs/configuration.md); `--no-docker` keeps this script from
 * starting a Docker Engine where none answers.
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { IMAGE_NAMES } from './bootstrap/base-image.mjs'
import { stopDocker } from './bootstrap/dockerd.mjs'
import { servedUrl, showHello } from './bootstrap/hello.mjs'
import { prepare } from './bootstrap/index.mjs'
import { REPO_ROOT } from './bootstrap/paths.mjs'
import { BootstrapError } from './bootstrap/process.mjs'
import { progress } from './bootstrap/progress.mjs'

const PARENT_LOOK_MS = 1000
const MAIN = join(REPO_ROOT, 'apps/cli/dist/main.js')
const args = process.argv.slice(2)
const gatewayArgs = args.filter((arg) => arg !== '--no-docker')

let prepared
let gateway
let stopping = false
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, stop)
// npm hands no signal on: where it alone was ended, this script and the gateway would live on unseen.
if (process.env.npm_lifecycle_event === 'start') {
  const npm = process.ppid
  setInterval(() => {
    if (process.ppid !== npm && !stopping) stop()
  }, PARENT_LOOK_MS).unref()
}

try {
  prepared = await prepare({ images: ['base'], docker: !args.includes('--no-docker'), required: false })
  if (!stopping) process.exitCode = await serve()
} catch (cause) {
  if (!stopping) {
    progress('start', `failed: ${cause.message}${cause.hint ? ` (${cause.hint})` : ''}`)
    process.exitCode = 1
  }
} finally {
  if (prepared?.docker?.started) {
    await stopDocker()
    progress('docker', 'engine stopped')
  }
}

async function serve() {
  if (!existsSync(MAIN)) throw new BootstrapError(`${MAIN} was not built`, { hint: 'npm run build' })
  // A session of its own: Ctrl-C reaches this script alone, which then asks the gateway once, politely.
  gateway = spawn(process.execPath, [MAIN, 'gateway', ...gatewayArgs], {
    cwd: REPO_ROOT,
    env: prepared.env,
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  })
  const ended = new Promise((resolvePromise, reject) => {
    gateway.on('error', reject)
    gateway.on('exit', (code, signal) => resolvePromise(stopping && signal ? 0 : (code ?? 1)))
  })
  const served = new Promise((resolvePromise) => {
    createInterface({ input: gateway.stdout }).on('line', (line) => {
      process.stdout.write(`${line}\n`)
      const url = servedUrl(line)
      if (url) resolvePromise(url)
    })
  })
  const code = await Promise.race([ended, served.then(greet)])
  return code ?? ended
}

async function greet(url) {
  if (stopping) return
  await showHello(url, { apiKey: prepared.env.FAAS_API_KEY, problems: prepared.problems })
  buildRemainingImages()
}

/** Python and Node images are not needed for the hello; they arrive while the gateway already serves. */
function buildRemainingImages() {
  const rest = IMAGE_NAMES.filter((name) => name !== 'base')
  const builder = spawn('nice', ['-n', '10', process.execPath, join(REPO_ROOT, 'scripts/bootstrap/base-image.mjs'), ...rest], {
    cwd: REPO_ROOT,
    env: process.env,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  builder.on('error', (cause) => progress('images', `not built: ${cause.message}`))
  gateway.on('exit', () => builder.kill())
}

function stop() {
  if (!gateway || gateway.exitCode !== null) {
    if (stopping) process.exit(130) // asked twice while still setting up
    stopping = true
    return
  }
  progress('start', stopping ? 'ending the gateway now' : 'stopping: running executions may end (Ctrl-C again ends them now)')
  gateway.kill(stopping ? 'SIGKILL' : 'SIGTERM')
  stopping = true
}
