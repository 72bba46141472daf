/** Prepares what the platform is compared with: `docker run`, `docker run --runtime=runsc`, plain `runc run` and `crun run`. */
import { spawn } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { access, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { dockerRun, plainBundle, runProgram } from './baselines.mjs'

const IMAGE = 'faas-bench-baseline:latest'

export async function openBaselines() {
  const toolsDir = process.env.FAAS_TOOLS_DIR
  const rootfs = await mkdtemp(path.join(tmpdir(), 'faas-bench-rootfs-'))
  const closers = [() => rm(rootfs, { recursive: true, force: true })]
  const subjects = []
  await unpackBase(path.join(toolsDir, 'images/base'), rootfs)

  for (const name of ['runc', 'crun']) {
    const runtimePath = path.join(toolsDir, 'bin', name)
    if (!(await exists(runtimePath))) continue
    const bundle = await plainBundle({ runtimePath, rootfs })
    closers.unshift(bundle.close)
    subjects.push({ name: `${name} run`, run: bundle.run })
  }

  const docker = await onPath('docker')
  const socketPath = process.env.FAAS_DOCKER_SOCKET ?? '/var/run/docker.sock'
  if (docker === undefined || !(await exists(socketPath))) process.stderr.write('the docker baselines are left out: no docker client or no engine\n')
  else {
    const tar = path.join(rootfs, '..', `${path.basename(rootfs)}.tar`)
    await runProgram('tar', ['-C', rootfs, '-cf', tar, '.'])
    await runProgram(docker, ['-H', `unix://${socketPath}`, 'import', tar, IMAGE])
    await rm(tar)
    closers.unshift(() => runProgram(docker, ['-H', `unix://${socketPath}`, 'rmi', IMAGE]))
    subjects.push({ name: 'docker run', run: dockerRun({ docker, socketPath, image: IMAGE }) })
    const runtimes = JSON.parse(await runProgram(docker, ['-H', `unix://${socketPath}`, 'info', '--format', '{{json .Runtimes}}']))
    if (runtimes.runsc !== undefined) subjects.push({ name: 'docker run --runtime=runsc', run: dockerRun({ docker, socketPath, image: IMAGE, runtime: 'runsc' }) })
  }
  return {
    subjects,
    async close() {
      for (const close of closers) await close()
    },
  }
}

/** The layers of an OCI layout, one over the other. */
async function unpackBase(layout, rootfs) {
  const blob = (digest) => path.join(layout, 'blobs', ...digest.split(':'))
  const index = JSON.parse(await readFile(path.join(layout, 'index.json'), 'utf8'))
  const manifest = JSON.parse(await readFile(blob(index.manifests[0].digest), 'utf8'))
  for (const layer of manifest.layers) {
    const tar = spawn('tar', ['-C', rootfs, '-xzf', '-'], { stdio: ['pipe', 'ignore', 'inherit'] })
    const ended = new Promise((resolve, reject) => tar.on('error', reject).on('close', (code) => (code === 0 ? resolve() : reject(new Error(`tar ended with ${code}`)))))
    await Promise.all([pipeline(createReadStream(blob(layer.digest)), tar.stdin), ended])
  }
}

async function exists(file) {
  return access(file).then(() => true, () => false)
}

async function onPath(name) {
  for (const dir of (process.env.PATH ?? '').split(':')) if (await exists(path.join(dir, name))) return path.join(dir, name)
  return undefined
}
