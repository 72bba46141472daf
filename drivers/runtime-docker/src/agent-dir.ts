/** The host directory that is bound into containers: the agent, and a mount point for its socket's directory. */
import { createHash } from 'node:crypto'
import { chmod, mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { FaasError } from '@faas-platform/core'

export interface AgentBinary {
  readonly bytes: Buffer
  /** Twelve hex digits of its SHA-256: names everything that holds a copy. */
  readonly version: string
}

export async function readAgent(agentPath: string): Promise<AgentBinary> {
  try {
    const bytes = await readFile(agentPath)
    return { bytes, version: createHash('sha256').update(bytes).digest('hex').slice(0, 12) }
  } catch (error) {
    throw new FaasError('runtime/unavailable', { message: 'The guest agent can not be read.', hint: 'Build it: scripts/build-agent.sh.', details: { path: agentPath }, cause: error })
  }
}

/**
 * One directory per version of the agent, so that an upgrade never changes the program under a running sandbox.
 * Made aside and renamed into place: another process sees it whole or not at all.
 */
export async function prepareAgentDir(parent: string, agent: AgentBinary): Promise<string> {
  const dir = path.join(parent, agent.version)
  const complete = await stat(path.join(dir, 'run')).then(
    () => true,
    () => false,
  )
  if (complete) return dir
  const aside = `${dir}.${process.pid}.${Math.trunc(performance.now() * 1000)}`
  await mkdir(path.join(aside, 'run'), { recursive: true, mode: 0o755 })
  await writeFile(path.join(aside, 'agent'), agent.bytes, { mode: 0o755 })
  await chmod(path.join(aside, 'agent'), 0o755) // whatever the umask
  await chmod(aside, 0o755)
  try {
    await rename(aside, dir)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error
  }
  return dir
}
