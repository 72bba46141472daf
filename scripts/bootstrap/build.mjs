/** Builds what runs: the guest agent (Rust) and the TypeScript packages. Both do nothing when nothing changed. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { BIN_DIR, REPO_ROOT } from './paths.mjs'
import { BootstrapError, lastLines, run, which } from './process.mjs'
import { progress } from './progress.mjs'
import { ensureRust } from './rust-toolchain.mjs'
import { linkTool } from './tool-wrapper.mjs'

const BUILD_TIMEOUT_MS = 900_000
const AGENT_BINARIES = ['faas-agent', 'faas-hostkit']

/**
 * The environment in which `cargo` is found: the host's, else Debian's in the tools directory.
 * @returns {Promise<NodeJS.ProcessEnv>}
 */
export async function rustEnvironment() {
  if (which('cargo')) return process.env
  progress('agent', 'no cargo on this machine: fetching Rust from Debian')
  return ensureRust()
}

/** Builds the agent and puts it where the runtimes look for it, `.tools/bin`. */
export async function buildAgent() {
  const env = await rustEnvironment()
  const startedAt = performance.now()
  const { code, stdout, stderr } = await run('sh', [join(REPO_ROOT, 'scripts/build-agent.sh')], {
    cwd: REPO_ROOT,
    env,
    timeoutMs: BUILD_TIMEOUT_MS,
    check: false,
  })
  if (code !== 0) {
    throw new BootstrapError(`the guest agent does not build: ${lastLines(stderr || stdout, 8)}`, {
      hint: 'run scripts/build-agent.sh for its full output; Rust 1.89 or newer is needed (package cargo or rustup)',
    })
  }
  for (const name of AGENT_BINARIES) {
    const real = join(REPO_ROOT, 'agent/target/release', name)
    if (!existsSync(real)) throw new BootstrapError(`scripts/build-agent.sh left no ${real}`)
    linkTool({ binDir: BIN_DIR, name, real, root: '/' })
  }
  report('agent', startedAt)
}

export async function buildTypeScript() {
  const startedAt = performance.now()
  const tsc = join(REPO_ROOT, 'node_modules/.bin/tsc')
  const { code, stdout, stderr } = await run(tsc, ['-b'], { cwd: REPO_ROOT, timeoutMs: BUILD_TIMEOUT_MS, check: false })
  if (code !== 0) {
    throw new BootstrapError(`TypeScript does not build:\n${(stdout || stderr).trim().split('\n').slice(0, 30).join('\n')}`)
  }
  report('typescript', startedAt)
}

/** Silence means that there was nothing to do. */
function report(area, startedAt) {
  const seconds = (performance.now() - startedAt) / 1000
  if (seconds > 2) progress(area, `built in ${seconds.toFixed(1)} s`)
}
