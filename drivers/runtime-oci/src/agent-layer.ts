/**
 * The layer that lies over every image: the agent, and real directories where the runtime mounts.
 *
 * A hostile image may bring `/proc`, `/dev` or `/.faas` as links or files. A directory of an upper layer
 * hides them, so neither a mount nor the agent is ever found through something that the image chose.
 */
import { createHash } from 'node:crypto'
import { access, chmod, copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { HostKit } from '@faas-platform/host'
import { AGENT_DIR } from './config-json.js'

const TMP_MARK = '.on-disk'
const MOUNT_POINTS = ['proc', 'sys', 'dev', 'etc'] as const

export interface AgentLayerOptions {
  readonly agentPath: string
  /**
   * gVisor puts a file system in memory over an empty /tmp: what is written there would count as memory and be
   * gone from the end state. A file keeps it from that.
   */
  readonly keepTmpOnDisk: boolean
}

/** Makes the layer for this agent binary once; returns its directory. */
export async function ensureAgentLayer(dir: string, hostkit: HostKit, { agentPath, keepTmpOnDisk }: AgentLayerOptions): Promise<string> {
  const digest = createHash('sha256').update(await readFile(agentPath)).digest('hex').slice(0, 16)
  const layer = join(dir, `agent-${digest}${keepTmpOnDisk ? '-tmp' : ''}`)
  if (await exists(join(layer, AGENT_DIR, 'agent'))) return layer
  // Several drivers and processes share the directory: each works on a draft of its own.
  const draft = await mkdtemp(`${layer}.tmp-`)
  await mkdir(join(draft, AGENT_DIR))
  for (const name of MOUNT_POINTS) await mkdir(join(draft, name))
  await mkdir(join(draft, 'tmp'))
  if (keepTmpOnDisk) await writeFile(join(draft, 'tmp', TMP_MARK), '')
  await chmod(join(draft, 'tmp'), 0o1777)
  const agent = join(draft, AGENT_DIR, 'agent')
  await copyFile(agentPath, agent)
  await chmod(agent, 0o755)
  // Nothing that an image puts below this name shows through.
  await hostkit.call('opaque', join(draft, AGENT_DIR))
  for (const path of [join(draft, AGENT_DIR), draft, ...MOUNT_POINTS.map((name) => join(draft, name))]) await chmod(path, 0o755)
  try {
    await rename(draft, layer)
  } catch (error) {
    // Somebody else made the same layer meanwhile; its content is the same.
    if (!(await exists(join(layer, AGENT_DIR, 'agent')))) throw error
    await rm(draft, { recursive: true, force: true })
  }
  return layer
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path)
    return true
  } catch {
    return false
  }
}
