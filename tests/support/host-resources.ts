/** What one data directory holds on the host right now: counted by the kernel's and the engine's own lists. */
import { existsSync } from 'node:fs'
import { request } from 'node:http'
import { dataDirId } from '@faas-platform/host'
import { leakCounter } from '@faas-platform/testkit'

export interface HostResources {
  readonly mounts: number
  readonly cgroups: number
  readonly networkNamespaces: number
  readonly processes: number
  readonly directories: number
  readonly containers: number
  readonly volumes: number
}

export async function hostResources(dataDir: string): Promise<HostResources> {
  const owner = dataDirId(dataDir)
  const { fds: _own, ...counts } = leakCounter({ dataDir, hostPrefix: `faas-${owner}` })()
  return { ...counts, containers: await countInEngine('/containers/json?all=1', owner), volumes: await countInEngine('/volumes', owner) }
}

/** Entries of an engine's list that carry the owner in a name or label; 0 when there is no engine. */
async function countInEngine(path: string, owner: string): Promise<number> {
  const socketPath = process.env['FAAS_DOCKER_SOCKET'] ?? '/var/run/docker.sock'
  if (!existsSync(socketPath)) return 0
  const text = await new Promise<string>((resolve, reject) => {
    request({ socketPath, path }, (response) => {
      let body = ''
      response.setEncoding('utf8').on('data', (chunk: string) => (body += chunk)).on('end', () => resolve(body)).on('error', reject)
    }).on('error', reject).end()
  })
  const parsed = JSON.parse(text) as readonly unknown[] | { readonly Volumes: readonly unknown[] | null }
  const entries = 'Volumes' in parsed ? (parsed.Volumes ?? []) : (parsed as readonly unknown[])
  return entries.filter((entry) => JSON.stringify(entry).includes(owner)).length
}
