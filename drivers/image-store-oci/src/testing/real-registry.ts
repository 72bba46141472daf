/** Debian's docker-registry on a free port of loopback, and a small client that pushes to it. */
import { spawn } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { toolPath, type TestImage } from './fixtures.js'

export interface RealRegistry {
  readonly host: string
  push(repository: string, tag: string, of: TestImage): Promise<void>
  /** Pushes a manifest or index whose content is there already. */
  pushManifest(repository: string, reference: string, bytes: Uint8Array, mediaType: string): Promise<void>
  stop(): Promise<void>
}

export const REGISTRY_USER = { username: 'nutzer', password: 'geheim' }
/** bcrypt of the password above. */
const HTPASSWD = 'nutzer:$2y$05$abcdefghijklmnopqrstuuVWu8RjbNovPZWAMRdd7iqaaG0mI53Uu\n'

export async function startRegistry(dir: string, auth: 'open' | 'basic'): Promise<RealRegistry> {
  const port = await freePort()
  const host = `127.0.0.1:${port}`
  writeFileSync(join(dir, 'htpasswd'), HTPASSWD)
  const config = join(dir, 'registry.yml')
  const authBlock = auth === 'basic' ? `auth:\n  htpasswd:\n    realm: test\n    path: ${join(dir, 'htpasswd')}\n` : ''
  writeFileSync(config, `version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: ${join(dir, 'data')}\nhttp:\n  addr: ${host}\n${authBlock}`)
  const child = spawn(toolPath('docker-registry'), ['serve', config], { stdio: ['ignore', 'ignore', 'pipe'] })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const headers: Record<string, string> = auth === 'basic' ? { authorization: `Basic ${Buffer.from(`${REGISTRY_USER.username}:${REGISTRY_USER.password}`).toString('base64')}` } : {}
  await answering(`http://${host}/v2/`, headers, () => (child.exitCode !== null ? said : undefined))

  const send = async (method: string, path: string, body?: Uint8Array, type = 'application/octet-stream'): Promise<Response> => {
    const response = await fetch(new URL(path, `http://${host}`), { method, headers: { ...headers, 'content-type': type }, ...(body !== undefined && { body: Buffer.from(body) }) })
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`)
    return response
  }
  const pushManifest = async (repository: string, reference: string, bytes: Uint8Array, mediaType: string): Promise<void> => {
    await send('PUT', `/v2/${repository}/manifests/${reference}`, bytes, mediaType)
  }
  return {
    host,
    pushManifest,
    async push(repository, tag, of) {
      for (const [digest, bytes] of of.blobs) {
        const started = await send('POST', `/v2/${repository}/blobs/uploads/`)
        const upload = new URL(started.headers.get('location') ?? '', `http://${host}`)
        upload.searchParams.set('digest', digest)
        await send('PUT', upload.href, bytes)
      }
      await pushManifest(repository, tag, of.manifest, (JSON.parse(of.manifest.toString()) as { mediaType: string }).mediaType)
    },
    async stop() {
      const exited = new Promise((resolve) => child.once('exit', resolve))
      if (child.exitCode === null && child.kill('SIGKILL')) await exited
    },
  }
}

async function answering(url: string, headers: Record<string, string>, failed: () => string | undefined): Promise<void> {
  const deadline = performance.now() + 15_000
  for (;;) {
    const ok = await fetch(url, { headers }).then((response) => response.ok, () => false)
    if (ok) return
    const why = failed()
    if (why !== undefined || performance.now() > deadline) throw new Error(`the registry did not start: ${why ?? 'no answer'}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer().once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => (typeof address === 'object' && address !== null ? resolve(address.port) : reject(new Error('no port'))))
    })
  })
}
