/**
 * Proof that a fetched tool works on this host, not merely that it starts:
 * a container runtime must run a busybox container with stdin, stdout and an
 * exit code; CRIU must pass its own check of the kernel.
 */
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BootstrapError, lastLines, run } from './process.mjs'

const PROOF_EXIT_CODE = 42
const PROOF_TIMEOUT_MS = 30_000

/** Each set of global flags is proved by a container of its own. gVisor's network stack is a thing apart. */
const RUNTIME_FLAGS = {
  runc: [[]],
  crun: [[]],
  runsc: [
    ['--platform=systrap', '--ignore-cgroups', '--network=none'],
    ['--platform=systrap', '--ignore-cgroups', '--network=sandbox'],
  ],
}

/**
 * Runs a container with stdin, stdout and an exit code, and checks what came back.
 * @param {{ name: string, file: string, busybox: string, env: NodeJS.ProcessEnv }} options
 * @returns {Promise<string>} What was seen, for the record.
 * @throws BootstrapError with the runtime's own words.
 */
export async function proveRuntime({ name, file, busybox, env }) {
  const times = []
  for (const flags of RUNTIME_FLAGS[name]) times.push(await runOnce({ name, file, flags, busybox, env }))
  return `ran a busybox container in ${times.join(', ')} ms`
}

async function runOnce({ name, file, flags: runtimeFlags, busybox, env }) {
  const work = mkdtempSync(join(tmpdir(), `faas-proof-${name}-`))
  const id = `faas-proof-${name}-${process.pid}`
  const flags = ['--root', join(work, 'state'), ...runtimeFlags]
  try {
    writeBundle(work, id, busybox)
    const startedAt = performance.now()
    const result = await run(file, [...flags, 'run', '--bundle', work, id], {
      env,
      input: 'ping\n',
      timeoutMs: PROOF_TIMEOUT_MS,
      check: false,
    })
    const ms = Math.round(performance.now() - startedAt)
    if (result.code !== PROOF_EXIT_CODE || result.stdout.trim() !== 'pong ping') {
      throw new BootstrapError(
        `${name} does not run a container here: exit ${result.signal ?? result.code}, ${lastLines(result.stderr) || 'no message'}`,
      )
    }
    return ms
  } finally {
    await run(file, [...flags, 'delete', '--force', id], { env, check: false })
    rmSync(work, { recursive: true, force: true })
  }
}

/** @returns {Promise<string>} CRIU's verdict. @throws BootstrapError with what CRIU misses. */
export async function proveCriu({ file, env }) {
  const { code, stdout, stderr } = await run(file, ['check'], { env, timeoutMs: PROOF_TIMEOUT_MS, check: false })
  const said = `${stdout}\n${stderr}`
  if (code !== 0 || !/Looks good/.test(said)) throw new BootstrapError(`criu check: ${lastLines(said, 6)}`)
  return 'criu check: Looks good.'
}

function writeBundle(dir, id, busybox) {
  for (const sub of ['rootfs/bin', 'rootfs/proc', 'rootfs/dev', 'rootfs/sys']) mkdirSync(join(dir, sub), { recursive: true })
  copyFileSync(busybox, join(dir, 'rootfs/bin/busybox'))
  const config = {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: ['/bin/busybox', 'sh', '-c', `read word && echo "pong $word" && exit ${PROOF_EXIT_CODE}`],
      env: ['PATH=/bin'],
      cwd: '/',
      capabilities: { bounding: [], effective: [], permitted: [] },
      noNewPrivileges: true,
    },
    root: { path: 'rootfs', readonly: true },
    hostname: 'proof',
    mounts: [
      { destination: '/proc', type: 'proc', source: 'proc' },
      { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'] },
    ],
    linux: {
      cgroupsPath: `/${id}`,
      resources: { memory: { limit: 128 * 1024 * 1024 }, pids: { limit: 64 } },
      namespaces: ['pid', 'mount', 'ipc', 'uts', 'network'].map((type) => ({ type })),
    },
  }
  writeFileSync(join(dir, 'config.json'), JSON.stringify(config))
}
