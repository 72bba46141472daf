/** A real gateway in a process of its own, as a user starts it, so that tests can kill it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { eventually, within } from '@faas-platform/testkit'

export const REPO_ROOT = fileURLToPath(new URL('../../', import.meta.url))
const FAAS = path.join(REPO_ROOT, 'apps/cli/dist/main.js')
/** A first start brings the images in, too. */
const START_MS_MAX = 60_000
const STOP_MS_MAX = 60_000
const LOG_CHARS_KEPT = 40_000

export interface GatewayOptions {
  readonly dataDir: string
  /** Default: a free one. */
  readonly port?: number
  /** Default 127.0.0.1. */
  readonly host?: string
  readonly env?: Readonly<Record<string, string>>
}

export interface GatewayProcess extends AsyncDisposable {
  readonly url: string
  readonly port: number
  readonly pid: number
  readonly dataDir: string
  /** The last of what it logged, for failure messages. */
  readonly log: () => string
  /** Lines that it logged as errors. */
  readonly errors: readonly string[]
  /** Exit code; null when a signal ended it. */
  readonly exited: Promise<number | null>
  /** Sends the signal and waits for the end. */
  kill(signal: NodeJS.Signals): Promise<void>
  /** Sends the signal only. */
  signal(signal: NodeJS.Signals): void
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

/** Resolves when it serves. @throws Error with its log when it ends before that */
export async function startGateway(options: GatewayOptions): Promise<GatewayProcess> {
  const { gateway, serving } = await spawnGateway(options)
  try {
    await within(START_MS_MAX, 'the gateway to serve', Promise.race([serving, gateway.exited.then((code) => Promise.reject(new Error(`the gateway ended with ${code}`)))]))
  } catch (cause) {
    await gateway.kill('SIGKILL')
    throw new Error(`The gateway did not start:\n${gateway.log()}`, { cause })
  }
  return gateway
}

/** Only starts the process; `serving` settles when it says where it serves. */
export async function spawnGateway(options: GatewayOptions): Promise<{ readonly gateway: GatewayProcess; readonly serving: Promise<void> }> {
  const port = options.port ?? (await freePort())
  const child = spawn(process.execPath, [FAAS, 'gateway'], {
    cwd: REPO_ROOT,
    env: { ...process.env, FAAS_PORT: String(port), FAAS_HOST: options.host ?? '127.0.0.1', FAAS_DATA_DIR: options.dataDir, FAAS_LOG_LEVEL: 'info', ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let log = ''
  const errors: string[] = []
  let told = (): void => undefined
  const serving = new Promise<void>((resolve) => (told = resolve))
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      log = (log + text).slice(-LOG_CHARS_KEPT)
      errors.push(...text.split('\n').filter((line) => /"level":[56]0,/.test(line)))
      if (stream === child.stdout && text.includes('Serving on ')) told()
    })
  }
  const exited = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)))
  const gateway: GatewayProcess = {
    url: `http://127.0.0.1:${port}`,
    port,
    pid: child.pid ?? -1,
    dataDir: options.dataDir,
    log: () => log,
    errors,
    exited,
    kill: (signal) => end(child, exited, signal),
    signal: (signal) => void child.kill(signal),
    [Symbol.asyncDispose]: () => end(child, exited, 'SIGTERM'),
  }
  return { gateway, serving }
}

/** A gateway that does not end when asked is ended, and the test told. */
async function end(child: ChildProcess, exited: Promise<unknown>, signal: NodeJS.Signals): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  try {
    await within(STOP_MS_MAX, `the end of the gateway after ${signal}`, exited)
  } catch (error) {
    child.kill('SIGKILL')
    await exited
    throw error
  }
}

/** Resolves when the images that were built for this host are all in: a gateway serves while it still imports. */
export async function imagesImported(gateway: GatewayProcess, references: readonly string[] = ['faas/base:latest', 'faas/node:20', 'faas/python:3.11']): Promise<void> {
  let missing: readonly string[] = []
  const look = async (): Promise<boolean> => {
    const images = (await (await fetch(`${gateway.url}/api/v1/images`)).json()) as readonly { readonly store: string; readonly reference: string }[]
    const stores = [...new Set(images.map(({ store }) => store))]
    missing = stores.flatMap((store) => references.filter((reference) => !images.some((image) => image.store === store && image.reference.endsWith(reference))).map((reference) => `${reference} in ${store}`))
    return stores.length > 0 && missing.length === 0
  }
  await eventually(look, { deadlineMs: START_MS_MAX, everyMs: 100, what: 'the built images to be imported' }).catch((cause: unknown) => {
    throw new Error(`Not imported: ${missing.join(', ')}\n${gateway.log()}`, { cause })
  })
}
