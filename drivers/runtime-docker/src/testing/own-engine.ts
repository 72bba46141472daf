/** A second real engine that a test may kill: own data, sockets and containerd, without network. Needs root and the project's tools. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { openSync, closeSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { setTimeout as delay } from 'node:timers/promises'
import { EngineClient } from '../engine-client.js'

const BIN = fileURLToPath(new URL('../../../../.tools/bin', import.meta.url))
const START_DEADLINE_MS = 60_000

export interface OwnEngine extends AsyncDisposable {
  readonly socketPath: string
  start(): Promise<void>
  /** Ends it; containers end with it unless it keeps them (`live-restore`). */
  stop(signal: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

/** In /run and /var/tmp: socket paths are short, and the data needs a file system that overlays can lie on. */
export async function ownEngine(config: Readonly<Record<string, unknown>> = {}): Promise<OwnEngine> {
  const run = await mkdtemp('/run/faas-dkt-')
  const data = await mkdtemp('/var/tmp/faas-dkt-')
  const socketPath = path.join(run, 'docker.sock')
  const configFile = path.join(run, 'daemon.json')
  await mkdir(path.join(run, 'exec'))
  await writeFile(configFile, JSON.stringify({
    hosts: [`unix://${socketPath}`], 'data-root': data, 'exec-root': path.join(run, 'exec'), pidfile: path.join(run, 'docker.pid'),
    bridge: 'none', iptables: false, ip6tables: false, 'ip-forward': false, 'userland-proxy': false, 'shutdown-timeout': 3, ...config,
  }))
  let child: ChildProcess | undefined
  const start = async (): Promise<void> => {
    const log = openSync(path.join(run, 'log'), 'a')
    child = spawn(path.join(BIN, 'dockerd'), ['--config-file', configFile], { stdio: ['ignore', log, log], env: { ...process.env, PATH: `${BIN}:${process.env['PATH'] ?? ''}` } })
    closeSync(log)
    const started = child
    const until = Date.now() + START_DEADLINE_MS
    for (;;) {
      const client = new EngineClient({ socketPath })
      const up = await client.json({ path: '/version' }).then(() => true, () => false)
      client.close()
      if (up) return
      if (started.exitCode !== null || Date.now() > until) throw new Error(`The engine did not start: ${await readFile(path.join(run, 'log'), 'utf8')}`)
      await delay(50)
    }
  }
  const stop = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<void> => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const gone = once(child, 'exit')
    child.kill(signal)
    await gone
  }
  await start()
  return {
    socketPath, start, stop,
    async [Symbol.asyncDispose]() {
      await stop('SIGTERM')
      await endRemaining(run)
      await unmountRemaining([run, data])
      await rm(run, { recursive: true, force: true })
      await rm(data, { recursive: true, force: true })
    },
  }
}

/** What a killed engine left mounted, deepest first. */
async function unmountRemaining(roots: readonly string[]): Promise<void> {
  const points = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n').map((line) => line.split(' ')[4] ?? '')
  const ours = points.filter((point) => roots.some((root) => point === root || point.startsWith(`${root}/`))).sort((a, b) => b.length - a.length)
  for (const point of ours) await promisify(execFile)('umount', ['--lazy', point])
}

/** containerd and shims of a killed engine: they name its directory on their command line. */
async function endRemaining(run: string): Promise<void> {
  const find = async (): Promise<number[]> => {
    const found: number[] = []
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue
      const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '')
      if (line.split('\0').some((argument) => argument.startsWith(`${run}/`))) found.push(Number(name))
    }
    return found
  }
  const until = Date.now() + 10_000
  for (let left = await find(); left.length > 0 && Date.now() < until; left = await find()) {
    for (const pid of left) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
      }
    }
    await delay(50)
  }
}
