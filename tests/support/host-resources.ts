/** What one data directory holds on the host right now, counted by the kernel's and the engine's own lists. */
import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { request } from 'node:http'
import path from 'node:path'
import { promisify } from 'node:util'
import { dataDirId } from '@faas-platform/host'
import { leakCounter } from '@faas-platform/testkit'
import type { DataDir } from './data-dir.js'

export interface HostResources {
  readonly mounts: number
  readonly cgroups: number
  readonly networkNamespaces: number
  readonly processes: number
  /** Entries of `sandboxes`, `run` and `retained`. */
  readonly directories: number
  readonly containers: number
  readonly volumes: number
  readonly engineNetworks: number
  /** Network links, and lines of the whole firewall (iptables' tables too) that name the owner or its links. */
  readonly links: number
  readonly firewallLines: number
  /** Temporary files, and state of runtimes below /run. */
  readonly temporaryFiles: readonly string[]
  readonly runFiles: readonly string[]
}

const run = promisify(execFile)

export async function hostResources(dataDir: DataDir): Promise<HostResources> {
  const owner = dataDirId(dataDir.path)
  const { fds: _own, ...counts } = leakCounter({ dataDir: dataDir.path, hostPrefix: `faas-${owner}` })()
  return {
    ...counts,
    containers: await countInEngine('/containers/json?all=1', owner),
    volumes: await countInEngine('/volumes', owner),
    engineNetworks: await countInEngine('/networks', owner),
    links: readdirSync('/sys/class/net').filter((name) => name.startsWith(linksOf(owner)) || name.includes(owner)).length,
    firewallLines: await firewallLines(owner),
    temporaryFiles: readdirSync(dataDir.temp),
    runFiles: filesNaming(owner, '/run', 4),
  }
}

/** Entries of an engine's list that carry the owner in a name or label; 0 when there is no engine. */
async function countInEngine(list: string, owner: string): Promise<number> {
  const socketPath = process.env['FAAS_DOCKER_SOCKET'] ?? '/var/run/docker.sock'
  if (!existsSync(socketPath)) return 0
  const text = await new Promise<string>((resolve, reject) => {
    request({ socketPath, path: list }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk)).on('end', () => resolve(body)).on('error', reject)
    }).on('error', reject).end()
  })
  const parsed = JSON.parse(text) as readonly unknown[] | { readonly Volumes: readonly unknown[] | null }
  const entries = 'Volumes' in parsed ? (parsed.Volumes ?? []) : (parsed as readonly unknown[])
  return entries.filter((entry) => JSON.stringify(entry).includes(owner)).length
}

/** Names of the host's ends of sandbox cables begin so. */
function linksOf(owner: string): string {
  return `f${owner.slice(0, 6)}-`
}

/** 0 without `nft`: nobody can have made a rule then. */
async function firewallLines(owner: string): Promise<number> {
  const tools = process.env['FAAS_TOOLS_DIR']
  const nft = [...(tools === undefined ? [] : [path.join(tools, 'bin')]), '/usr/sbin', '/sbin'].map((dir) => path.join(dir, 'nft')).find((file) => existsSync(file))
  if (nft === undefined || process.getuid?.() !== 0) return 0
  const { stdout } = await run(nft, ['list', 'ruleset'], { maxBuffer: 64 * 1024 * 1024 })
  return stdout.split('\n').filter((line) => line.includes(owner) || line.includes(linksOf(owner))).length
}

function filesNaming(owner: string, dir: string, depth: number): string[] {
  if (depth === 0) return []
  let entries
  try {
    entries = readdirSync(dir, { withFileTypes: true })
  } catch (error) {
    // It went while it was looked at, or is somebody's mount that not even root may read.
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES' || code === 'ENOTDIR') return []
    throw error
  }
  return entries.flatMap((entry) => {
    const file = path.join(dir, entry.name)
    if (entry.name.includes(owner)) return [file]
    return entry.isDirectory() ? filesNaming(owner, file, depth - 1) : []
  })
}
