/**
 * Names and host resources of the project's own Docker Engine. Everything is
 * derived from the tools directory, so two checkouts never meet, and each
 * resource can be found and counted again after a crash.
 */
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import { startTime } from './lock.mjs'
import { pathWithTools, TOOLS_DIR } from './paths.mjs'
import { run, which } from './process.mjs'

const TAG = createHash('sha256').update(TOOLS_DIR).digest('hex').slice(0, 6)

/** Unix socket paths end at 108 bytes and a checkout may lie deep, so sockets live in /run. */
const RUN_DIR = `/run/faas-docker-${TAG}`

export const DOCKER = {
  bridge: `faasdk-${TAG}`, // interface names end at 15 characters
  runDir: RUN_DIR,
  socket: join(RUN_DIR, 'docker.sock'),
  pidFile: join(RUN_DIR, 'dockerd.pid'),
  execRoot: join(RUN_DIR, 'exec'),
  dataRoot: join(TOOLS_DIR, 'docker', 'data'),
  tempDir: join(TOOLS_DIR, 'docker', 'tmp'), // containerd forgets checkpoints in its temporary directory
  config: join(TOOLS_DIR, 'docker', 'daemon.json'),
  cgroup: `faasdk-${TAG}`, // every container of ours is below it, so none can hide after a crash
  log: join(TOOLS_DIR, 'docker', 'dockerd.log'),
  state: join(TOOLS_DIR, 'docker', 'state.json'),
}

/**
 * @typedef {{ pid: number, startTime: string, subnet: string }} EngineState
 * @returns {EngineState | undefined} The engine this project started last, whether or not it still lives.
 */
export function readState() {
  return existsSync(DOCKER.state) ? JSON.parse(readFileSync(DOCKER.state, 'utf8')) : undefined
}

/** True only for the very process that was started: pids are reused. */
export function isAlive(state) {
  return state !== undefined && startTime(state.pid) === state.startTime
}

/** @returns {Promise<{ processes: number[], mounts: string[], cgroups: string[], bridge: boolean, runDir: boolean, chains: string[] }>} */
export async function countLeftovers() {
  return {
    processes: engineProcesses(),
    mounts: engineMounts(),
    cgroups: engineCgroups(),
    bridge: existsSync(`/sys/class/net/${DOCKER.bridge}`),
    runDir: existsSync(DOCKER.runDir),
    chains: await dockerChains(),
  }
}

/** containerd and shims name our exec root on their command line; containers are in our cgroups. */
export function engineProcesses() {
  const named = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => commandLine(pid).some((arg) => arg === DOCKER.config || arg.startsWith(`${DOCKER.execRoot}/`)))
    .map(Number)
  const contained = engineCgroups().flatMap((dir) => readIfThere(join(dir, 'cgroup.procs')).split('\n').filter(Boolean).map(Number))
  return [...new Set([...named, ...contained])]
}

/** Our cgroups in every v1 hierarchy and in v2, children first. */
export function engineCgroups() {
  const base = '/sys/fs/cgroup'
  const hierarchies = [base, ...readdirSync(base, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => join(base, name))]
  const tops = hierarchies.map((dir) => join(dir, DOCKER.cgroup)).filter((dir) => existsSync(dir))
  const below = (dir) => {
    const children = existsSync(dir) ? readdirSync(dir, { withFileTypes: true }).filter((entry) => entry.isDirectory()) : []
    return [...children.flatMap(({ name }) => below(join(dir, name))), dir]
  }
  return tops.flatMap(below)
}

export function removeCgroups() {
  for (const dir of engineCgroups()) {
    try {
      rmdirSync(dir)
    } catch (cause) {
      // Still busy, or gone already: what stays is counted as left over, so it is not hidden here.
      if (!['EBUSY', 'ENOENT', 'ENOTEMPTY'].includes(cause.code)) throw cause
    }
  }
}

/** Mount points below our directories, deepest first. */
export function engineMounts() {
  const roots = [DOCKER.runDir, DOCKER.dataRoot]
  return readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[4])
    .filter((point) => point && roots.some((root) => point === root || point.startsWith(`${root}/`)))
    .map((point) => point.replace(/\\040/g, ' '))
    .sort((a, b) => b.length - a.length)
}

/** Docker leaves its chains in place when it ends. Listed as `table chain`. */
export async function dockerChains() {
  const chains = []
  let table = ''
  for (const line of await savedRules()) {
    if (line.startsWith('*')) table = line.slice(1)
    const chain = /^:(DOCKER\S*)/.exec(line)?.[1]
    if (chain) chains.push(`${table} ${chain}`)
  }
  return chains
}

/**
 * Removes the rules for our bridge, and Docker's own chains unless another
 * engine on this host still needs them.
 * @param {string} subnet First three numbers of the bridge's addresses, with a dot at the end.
 */
export async function removeFirewallRules(subnet) {
  const env = { ...process.env, PATH: pathWithTools() }
  const shared = otherEngineRuns() || namesOtherBridge(await savedRules())
  const ours = (line) => line.includes(DOCKER.bridge) || line.includes(` ${subnet}`) || (!shared && line.includes('DOCKER'))
  let table = ''
  for (const line of await savedRules()) {
    if (line.startsWith('*')) table = line.slice(1)
    if (line.startsWith('-A ') && ours(line)) await run('iptables', ['-t', table, '-D', ...splitRule(line.slice(3))], { env })
  }
  if (shared) return
  // First empty, then delete: chains refer to each other.
  for (const operation of ['-F', '-X']) {
    for (const entry of await dockerChains()) {
      const [tableName, chain] = entry.split(' ')
      await run('iptables', ['-t', tableName, operation, chain], { env })
    }
  }
}

/**
 * Shims leave their sockets under containerd's fixed directory when they are
 * killed. Only sockets that nobody listens on are removed.
 */
export function removeDeadShimSockets(dir = '/run/containerd/s') {
  if (!existsSync(dir)) return
  const alive = readFileSync('/proc/net/unix', 'utf8')
  for (const name of readdirSync(dir)) {
    const path = join(dir, name)
    if (!alive.includes(path) && lstatSync(path).isSocket()) rmSync(path)
  }
}

/** An engine in another process namespace is not visible in /proc, but its bridges and rules are. */
function namesOtherBridge(lines) {
  const names = lines
    .filter((line) => /^-A (DOCKER|FORWARD)/.test(line))
    .flatMap((line) => [...line.matchAll(/ -[io] (\S+)/g)].map((match) => match[1]))
  return names.some((name) => name !== DOCKER.bridge && /^(docker|br-|faasdk-)/.test(name) && existsSync(`/sys/class/net/${name}`))
}

function otherEngineRuns() {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(commandLine)
    .some((args) => basename(args[0] ?? '') === 'dockerd' && !args.includes(DOCKER.config))
}

export function removeDirectories() {
  for (const dir of [DOCKER.runDir, DOCKER.tempDir]) rmSync(dir, { recursive: true, force: true })
}

/** Nothing where iptables is missing or the kernel has no netfilter: then Docker could not have left rules. */
async function savedRules() {
  const env = { ...process.env, PATH: pathWithTools() }
  if (!which('iptables-save', env.PATH)) return []
  const { code, stdout } = await run('iptables-save', [], { env, check: false })
  return code === 0 ? stdout.split('\n') : []
}

/** iptables-save quotes only what holds spaces. */
function splitRule(text) {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map((match) => match[1] ?? match[2])
}

function commandLine(pid) {
  return readIfThere(`/proc/${pid}/cmdline`).split('\0')
}

/** Processes and cgroups end while we look. */
function readIfThere(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    if (['ENOENT', 'ESRCH', 'ENODEV'].includes(cause.code)) return ''
    throw cause
  }
}
