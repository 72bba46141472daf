/** A real gateway in a process of its own, as a user starts it, so that tests can kill it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { eventually } from '@faas-platform/testkit'

export const REPO_ROOT = fileURLToPath(new URL('../../', import.meta.url))
const FAAS = path.join(REPO_ROOT, 'apps/cli/dist/main.js')
const START_MS_MAX = 60_000
const LOG_CHARS_KEPT = 20_000

export interface GatewayProcess extends AsyncDisposable {
  readonly url: string
  readonly pid: number
  /** The last of what it logged, for failure messages. */
  readonly log: () => string
  readonly exited: Promise<number | null>
  kill(signal: NodeJS.Signals): Promise<void>
}

export async function freePort(): Promise<number> {
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('a TCP server has a port')
  return address.port
}

/** Resolves when `/health` answers. */
export async function startGateway(options: { readonly dataDir: string; readonly port?: number; readonly env?: Readonly<Record<string, string>> }): Promise<GatewayProcess> {
  const port = options.port ?? (await freePort())
  const child = spawn(process.execPath, [FAAS, 'gateway'], {
    cwd: REPO_ROOT,
    env: { ...process.env, FAAS_PORT: String(port), FAAS_HOST: '127.0.0.1', FAAS_DATA_DIR: options.dataDir, FAAS_LOG_LEVEL: 'info', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8')
    stream.on('data', (text: string) => (log = (log + text).slice(-LOG_CHARS_KEPT)))
  }
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  const gateway: GatewayProcess = {
    url: `http://127.0.0.1:${port}`,
    pid: child.pid ?? -1,
    log: () => log,
    exited,
    kill: (signal) => end(child, exited, signal),
    [Symbol.asyncDispose]: () => end(child, exited, 'SIGTERM'),
  }
  try {
    await eventually(async () => {
      if (child.exitCode !== null) throw new Error(`the gateway ended with ${child.exitCode}`)
      const response = await fetch(`${gateway.url}/health`)
      return response.ok
    }, { deadlineMs: START_MS_MAX })
  } catch (cause) {
    await gateway.kill('SIGKILL')
    throw new Error(`The gateway did not start:\n${log}`, { cause })
  }
  return gateway
}

async function end(child: ChildProcess, exited: Promise<unknown>, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  await exited
}
