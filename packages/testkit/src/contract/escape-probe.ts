/** Builds the probe that tries one way out, with the Rust toolchain that also builds the agent. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { repositoryRoot } from './bench.js'

const run = promisify(execFile)
const BUILD_TIMEOUT_MS = 120_000

/** The path of the current binary. cargo does nothing when it is fresh, and takes a lock of its own. */
export async function buildEscapeProbe(): Promise<string> {
  const dir = join(repositoryRoot(), 'packages/testkit/escape-probe')
  await run('cargo', ['build', '--release', '--offline', '--quiet'], { cwd: dir, timeout: BUILD_TIMEOUT_MS })
  return join(dir, 'target/release/faas-escape-probe')
}

export async function listAttempts(probe: string): Promise<string[]> {
  const { stdout } = await run(probe, ['list'])
  return stdout.trim().split('\n')
}
