/** A driver on the real engine with a data directory of its own, and the base image in it. */
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { HostKit } from '@faas-platform/host'
import { asId, isFaasError, MIB, silentLog, systemClock, systemIds, type ExecExit, type ExecSpec, type LogSink, type ResolvedImage, type Sandbox, type SandboxId, type SandboxSpec } from '@faas-platform/core'
import { DockerDriver, type DockerDriverOptions } from '../docker-driver.js'
import { BASE_IMAGE_DIR, realEngineSocket, temporaryDir } from './real-engine.js'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
const BIN = path.join(ROOT, 'agent/target/release')
export const PATH_ENV = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }

export interface RealDriver extends AsyncDisposable {
  readonly driver: DockerDriver
  readonly image: ResolvedImage
  readonly options: DockerDriverOptions
  spec(overrides?: Partial<SandboxSpec>): SandboxSpec
}

export async function realDriver(overrides: Partial<DockerDriverOptions> = {}): Promise<RealDriver> {
  await promisify(execFile)('sh', [path.join(ROOT, 'scripts/build-agent.sh')], { timeout: 300_000 })
  const dir = await temporaryDir()
  const log: LogSink = silentLog
  const hostkit = new HostKit({ path: path.join(BIN, 'faas-hostkit'), log })
  const options: DockerDriverOptions = {
    socketPath: await realEngineSocket(), dataDir: dir.path, dataDirId: `t${randomBytes(3).toString('hex')}`, agentPath: path.join(BIN, 'faas-agent'), hostkit,
    clock: systemClock, ids: systemIds, log, ...overrides,
  }
  const driver = new DockerDriver(options)
  const reference = `faas-docker-test/base:${options.dataDirId}`
  await driver.images.importArchive(BASE_IMAGE_DIR, { reference, signal: AbortSignal.timeout(60_000) })
  const image = await driver.images.resolve(reference, { pull: 'never', signal: AbortSignal.timeout(60_000) })
  return {
    driver, image, options,
    spec: (changes = {}) => ({
      id: asId<SandboxId>(systemIds.uuid()), image, limits: { memoryBytes: 128 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB },
      network: { mode: 'none', allowCidrs: [] }, hostname: 'sandbox', labels: {}, ...changes,
    }),
    async [Symbol.asyncDispose]() {
      await driver[Symbol.asyncDispose]()
      // Whatever a failed test left, retained states too: to another driver it is nobody's.
      const sweeper = new DockerDriver(options)
      await sweeper.reclaim(new Set(), AbortSignal.timeout(60_000))
      // Two drivers of one test may share it: whoever goes last takes it away.
      await sweeper.images.remove(reference, AbortSignal.timeout(60_000)).catch((error: unknown) => {
        if (!isFaasError(error, 'image/not-found') && !isFaasError(error, 'image/in-use')) throw error
      })
      await sweeper[Symbol.asyncDispose]()
      await hostkit[Symbol.asyncDispose]()
      await dir[Symbol.asyncDispose]()
    },
  }
}

export interface Ran {
  readonly exit: ExecExit
  readonly stdout: string
  readonly stderr: string
}

export async function sh(sandbox: Sandbox, script: string, spec: Partial<ExecSpec> = {}, signal: AbortSignal = AbortSignal.timeout(60_000)): Promise<Ran> {
  const output = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] }
  const handle = await sandbox.exec({ argv: ['/bin/sh', '-c', script], env: PATH_ENV, ...spec }, { onOutput: (stream, bytes) => void output[stream].push(bytes.slice()) }, { signal })
  const exit = await handle.wait()
  return { exit, stdout: Buffer.concat(output.stdout).toString(), stderr: Buffer.concat(output.stderr).toString() }
}
