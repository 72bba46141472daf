/** Which runtimes this host has, as a gateway's own probes say. In CI every wanted one must be there. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startGateway } from './gateway-process.js'

interface RuntimeReply {
  readonly name: string
  readonly usable: boolean
  readonly reason: string
}

export async function usableRuntimes(wanted: readonly string[]): Promise<readonly string[]> {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'faas-probe-'))
  try {
    await using gateway = await startGateway({ dataDir, env: { FAAS_DISABLE_PREWARM: '1' } })
    const runtimes = (await (await fetch(`${gateway.url}/api/v1/runtimes`)).json()) as readonly RuntimeReply[]
    const usable = wanted.filter((name) => runtimes.some((runtime) => runtime.name === name && runtime.usable))
    const missing = wanted.filter((name) => !usable.includes(name))
    for (const name of missing) console.warn(`runtime ${name} is left out: ${runtimes.find((runtime) => runtime.name === name)?.reason ?? 'not configured'}`)
    if (process.env['CI'] === 'true' && missing.length > 0) throw new Error(`CI needs every runtime; missing: ${missing.join(', ')}`)
    return usable
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}
