/** What people would run without this platform, on the same machine in the same run. */
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

/** Runs a program to its end. Rejects with its stderr when it fails. */
export function runProgram(file, args, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
    const stdout = []
    const stderr = []
    child.stdout.on('data', (chunk) => stdout.push(chunk))
    child.stderr.on('data', (chunk) => stderr.push(chunk))
    child.on('error', reject)
    child.on('close', (code) => {
      if (code === 0) resolve(Buffer.concat(stdout).toString())
      else reject(new Error(`${file} ${args.join(' ')} ended with ${code}: ${Buffer.concat(stderr).toString().slice(-2000)}`))
    })
  })
}

/** `docker run --rm --network none IMAGE echo hello`, with the engine's own client. */
export function dockerRun({ docker, socketPath, image, runtime }) {
  const args = ['-H', `unix://${socketPath}`, 'run', '--rm', '--network', 'none', ...(runtime === undefined ? [] : ['--runtime', runtime]), image, 'echo', 'hello']
  return async () => {
    const output = await runProgram(docker, args)
    if (output !== 'hello\n') throw new Error(`docker run printed ${JSON.stringify(output)}`)
  }
}

/** Plain `runc run` (or crun, runsc) of a bundle whose root file system is ready: create, start, wait, delete. */
export async function plainBundle({ runtimePath, rootfs, globalArgs = [] }) {
  const bundle = await mkdtemp(path.join(tmpdir(), 'faas-bench-bundle-'))
  const root = path.join(bundle, 'state')
  await mkdir(root)
  await runProgram(runtimePath, ['spec'], { cwd: bundle })
  const { default: fs } = await import('node:fs')
  const config = JSON.parse(fs.readFileSync(path.join(bundle, 'config.json'), 'utf8'))
  config.process.terminal = false
  config.process.args = ['/bin/echo', 'hello']
  config.root = { path: rootfs, readonly: true }
  await writeFile(path.join(bundle, 'config.json'), JSON.stringify(config))
  let count = 0
  return {
    run: async () => {
      const output = await runProgram(runtimePath, ['--root', root, ...globalArgs, 'run', '--bundle', bundle, `faas-bench-${process.pid}-${count++}`])
      if (output !== 'hello\n') throw new Error(`${runtimePath} printed ${JSON.stringify(output)}`)
    },
    close: () => rm(bundle, { recursive: true, force: true }),
  }
}
