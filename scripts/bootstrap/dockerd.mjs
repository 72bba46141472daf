/**
 * A real Docker Engine for machines where none answers: started from
 * `.tools/bin`, with everything of its own (data, sockets, containerd, bridge),
 * and ended without a trace.
 *
 * Invariants
 *  I1  An engine of the host is used as it is and never stopped.
 *  I2  Only the recorded process is signalled, and only while its start time matches.
 *
 *   node scripts/bootstrap/dockerd.mjs start | stop | status
 */
import { spawn } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { engineVersion } from './docker-api.mjs'
import { countLeftovers, DOCKER, engineMounts, engineProcesses, isAlive, readState, removeCgroups, removeDeadShimSockets, removeFirewallRules, removeDirectories } from './docker-state.mjs'
import { startTime, withLock } from './lock.mjs'
import { BIN_DIR, pathWithTools, TOOLS_DIR } from './paths.mjs'
import { BootstrapError, run } from './process.mjs'
import { progress } from './progress.mjs'
import { ensureTools } from './tools.mjs'

const ENGINE_TOOLS = ['runc', 'dockerd', 'docker-proxy', 'containerd', 'containerd-shim-runc-v2', 'docker-init', 'iptables', 'ip6tables', 'iptables-save', 'ip']
const START_DEADLINE_MS = 60_000
const STOP_DEADLINE_MS = 30_000
const POLL_MS = 50

/**
 * @typedef {{ socket: string, version: string, origin: 'host' | 'project', started: boolean }} Engine
 *   `started`: this very call brought it up, so this caller should stop it.
 */

/**
 * Finds an engine or starts one.
 * @returns {Promise<Engine>}
 * @throws BootstrapError when there is none and one can not be started, with the reason.
 */
export async function ensureDocker() {
  const present = await findEngine()
  if (present) return present
  if (process.getuid() !== 0) {
    throw new BootstrapError('no Docker Engine answers and starting one needs root', {
      hint: 'start Docker, or run this as root; everything but the docker runtime works without it',
    })
  }
  await ensureTools({ names: ENGINE_TOOLS, required: true })
  return withLock(TOOLS_DIR, 'docker', async () => {
    const arrived = await findEngine()
    if (arrived) return arrived
    await reclaim()
    return startEngine()
  })
}

/** Stops the engine this project started, if any, and reports what is left of it: nothing. */
export async function stopDocker() {
  return withLock(TOOLS_DIR, 'docker', async () => {
    await reclaim()
    return countLeftovers()
  })
}

/** @returns {Promise<Engine | undefined>} */
export async function findEngine() {
  const fromEnv = /^unix:\/\/(.+)/.exec(process.env.DOCKER_HOST ?? '')?.[1]
  for (const socket of [fromEnv, '/var/run/docker.sock', DOCKER.socket]) {
    const version = socket && existsSync(socket) ? await engineVersion(socket) : undefined
    if (version) return { socket, version, origin: socket === DOCKER.socket ? 'project' : 'host', started: false }
  }
  return undefined
}

async function startEngine() {
  mkdirSync(DOCKER.dataRoot, { recursive: true })
  mkdirSync(DOCKER.execRoot, { recursive: true, mode: 0o711 })
  mkdirSync(DOCKER.tempDir, { recursive: true, mode: 0o700 })
  // Docker turns the host's FORWARD policy to DROP, for every bridge, only where it had to enable forwarding itself.
  writeFileSync('/proc/sys/net/ipv4/ip_forward', '1')
  const subnet = await createBridge()
  writeFileSync(DOCKER.config, JSON.stringify(daemonConfig(), null, 2) + '\n')

  const log = openSync(DOCKER.log, 'w')
  const env = engineEnvironment()
  const child = spawn(`${BIN_DIR}/dockerd`, ['--config-file', DOCKER.config], { env, detached: true, stdio: ['ignore', log, log] })
  closeSync(log)
  let ended
  child.on('error', (cause) => (ended = cause.message))
  child.on('exit', (code, signal) => (ended = `ended with ${signal ?? code}`))
  child.unref()
  if (child.pid) {
    writeFileSync(DOCKER.state, JSON.stringify({ pid: child.pid, startTime: startTime(child.pid), subnet }))
  }

  const deadline = Date.now() + START_DEADLINE_MS
  for (;;) {
    const version = await engineVersion(DOCKER.socket)
    if (version) {
      progress('docker', `engine ${version} on ${DOCKER.socket}`)
      return { socket: DOCKER.socket, version, origin: 'project', started: true }
    }
    if (ended || Date.now() > deadline) {
      const said = lastErrors()
      await reclaim()
      throw new BootstrapError(`dockerd ${ended ?? 'did not answer in time'}: ${said}`, { hint: `its log is ${DOCKER.log}` })
    }
    await delay(POLL_MS)
  }
}

function daemonConfig() {
  const runtimes = {}
  if (existsSync(`${BIN_DIR}/runsc`)) runtimes.runsc = { path: `${BIN_DIR}/runsc`, runtimeArgs: ['--platform=systrap'] }
  if (existsSync(`${BIN_DIR}/crun`)) runtimes.crun = { path: `${BIN_DIR}/crun` }
  return {
    hosts: [`unix://${DOCKER.socket}`],
    'data-root': DOCKER.dataRoot,
    'exec-root': DOCKER.execRoot,
    pidfile: DOCKER.pidFile,
    bridge: DOCKER.bridge,
    experimental: true, // checkpoints
    'storage-driver': 'overlay2',
    features: { 'containerd-snapshotter': false }, // checkpoints need the classic store
    'userland-proxy-path': `${BIN_DIR}/docker-proxy`,
    'init-path': `${BIN_DIR}/docker-init`,
    'log-driver': 'json-file',
    'log-opts': { 'max-size': '10m', 'max-file': '1' },
    ip6tables: false,
    'cgroup-parent': `/${DOCKER.cgroup}`,
    'shutdown-timeout': 2,
    runtimes,
  }
}

/** dockerd makes only docker0 by itself; a bridge by another name must exist, with an address. */
async function createBridge() {
  const env = engineEnvironment()
  const { stdout } = await run('ip', ['-4', '-o', 'addr', 'show'], { env })
  const taken = new Set([...stdout.matchAll(/inet (\d+\.\d+)\./g)].map((match) => match[1]))
  const second = [...Array(16).keys()].map((index) => 240 + index).find((octet) => !taken.has(`10.${octet}`))
  if (second === undefined) throw new BootstrapError('no free address range for the Docker bridge')
  await run('ip', ['link', 'add', DOCKER.bridge, 'type', 'bridge'], { env })
  await run('ip', ['addr', 'add', `10.${second}.77.1/24`, 'dev', DOCKER.bridge], { env })
  await run('ip', ['link', 'set', DOCKER.bridge, 'up'], { env })
  return `10.${second}.77.`
}

/** Ends what a former engine of ours left, alive or dead; safe when there is nothing. */
async function reclaim() {
  const state = readState()
  if (isAlive(state)) {
    process.kill(state.pid, 'SIGTERM') // I2
    if (!(await waitFor(() => !isAlive(state), STOP_DEADLINE_MS))) process.kill(state.pid, 'SIGKILL')
  }
  // Again and again: a container that is being killed may still fork.
  await waitFor(() => {
    const pids = engineProcesses()
    for (const pid of pids) signal(pid, 'SIGKILL')
    return pids.length === 0
  }, STOP_DEADLINE_MS)
  for (const point of engineMounts()) await run('umount', ['--lazy', point], { check: false })
  const env = engineEnvironment()
  if (existsSync(`/sys/class/net/${DOCKER.bridge}`)) await run('ip', ['link', 'delete', DOCKER.bridge], { env })
  if (state) await removeFirewallRules(state.subnet)
  removeCgroups()
  if (state) removeDeadShimSockets()
  rmSync(DOCKER.state, { force: true })
  removeDirectories()
}

function engineEnvironment() {
  const { DOCKER_HOST: _host, NOTIFY_SOCKET: _notify, ...env } = process.env
  return { ...env, PATH: pathWithTools(), TMPDIR: DOCKER.tempDir }
}

function signal(pid, name) {
  try {
    process.kill(pid, name)
  } catch (cause) {
    if (cause.code !== 'ESRCH') throw cause
  }
}

async function waitFor(condition, timeoutMs) {
  const deadline = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > deadline) return false
    await delay(POLL_MS)
  }
  return true
}

function lastErrors() {
  const lines = readFileSync(DOCKER.log, 'utf8').trim().split('\n')
  const errors = lines.filter((line) => /level=(error|fatal)|^failed|^unable|panic/.test(line))
  return (errors.length > 0 ? errors : lines).slice(-3).join(' | ')
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const commands = {
    start: async () => JSON.stringify(await ensureDocker()),
    stop: async () => JSON.stringify({ leftovers: await stopDocker() }),
    status: async () => JSON.stringify({ engine: (await findEngine()) ?? null, leftovers: await countLeftovers() }),
  }
  try {
    const command = commands[process.argv[2] ?? 'status']
    if (!command) throw new BootstrapError(`usage: dockerd.mjs ${Object.keys(commands).join(' | ')}`)
    process.stdout.write(`${await command()}\n`)
  } catch (cause) {
    progress('docker', `failed: ${cause.message}${cause.hint ? ` (${cause.hint})` : ''}`)
    process.exitCode = 1
  }
}
