/** The process: names the drivers, wires them to the executor, serves. The only file here that knows them. */
import { existsSync, realpathSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir, totalmem } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Config } from '@faas-platform/config'
import { loadConfig } from '@faas-platform/config'
import type { ImageStore, Ledger, LogSink, RuntimeDriver } from '@faas-platform/core'
import { Cleanup, silentLog, systemClock, systemIds, toFaasError } from '@faas-platform/core'
import type { RuntimeStatus } from '@faas-platform/executor'
import { Executor, probeDriver } from '@faas-platform/executor'
import { dataDirId, EgressNetworks, HostKit, RegistryGuard } from '@faas-platform/host'
import { dockerConfigCredentials, OciImageStore } from '@faas-platform/image-store-oci'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { DockerDriver } from '@faas-platform/runtime-docker'
import type { OciRuntimeName } from '@faas-platform/runtime-oci'
import { createOciDriver } from '@faas-platform/runtime-oci'
import { pino } from 'pino'
import { areKeysDemanded } from './access/origin.js'
import { prepareDataDir } from './data-dir.js'
import { executorConfig } from './executor-config.js'
import { LocalImages } from './local-images.js'
import { serve, StopSignals } from './serve.js'
import { takeSignals } from './signals.js'

export const VERSION = '0.1.0'

/** sysexits: a wrong setting, and everything else that ends the start. */
const EXIT_CONFIG = 78
const EXIT_FAILED = 1
/** For a credential helper to answer. */
const CREDENTIALS_MS_MAX = 10_000
/** Binary of each runtime without an engine. */
const BINARIES = { runc: 'runc', crun: 'crun', gvisor: 'runsc' } as const satisfies Record<OciRuntimeName, string>

export interface OpenPlatform extends AsyncDisposable {
  readonly executor: Executor
  readonly ledger: Ledger
  /** Of runtimes that are usable, by family. */
  readonly imageStores: ReadonlyMap<string, ImageStore>
}

/** Opens the data directory and makes its executor ready. @throws FaasError `store/*` */
export async function openPlatform(config: Config, log: LogSink): Promise<OpenPlatform> {
  const cleanup = new Cleanup()
  try {
    const dataDir = await prepareDataDir(config.dataDir)
    const ledger = cleanup.use(await openLedger({ dataDir, log }))
    const { drivers, stores } = makeDrivers(config, dataDir, log, cleanup)
    const executor = new Executor({
      drivers, ledger, logStore: new FsLogStore({ dir: join(dataDir, 'logs') }), clock: systemClock, ids: systemIds, log,
      config: executorConfig(config, { cores: availableParallelism(), memoryBytes: totalmem() }),
    })
    cleanup.use(executor)
    const { runtimes } = await executor.start()
    for (const { name, probe } of runtimes) log.info({ runtime: name, usable: probe.usable, reason: probe.reason, version: probe.version }, probe.usable ? 'runtime usable' : 'runtime not usable')
    const families = new Set(runtimes.filter(({ probe }) => probe.usable).map(({ name }) => familyOf(name)))
    const imageStores = new Map([...stores].filter(([family]) => families.has(family)))
    const images = cleanup.use(new LocalImages({
      dir: join(toolsDir(config), 'images'), standIns: config.standIns, stores: imageStores, log, onImported: () => executor.invalidateImages(),
    }))
    // What a request without an image needs; the others come while it already serves, and the clean-up waits for them.
    await images.bringIn(config.defaultImage)
    void images.bringIn().then(() => log.info({}, 'built images are in'))
    images.watch()
    return { executor, ledger, imageStores, [Symbol.asyncDispose]: () => cleanup.run() }
  } catch (error) {
    await cleanup.run()
    throw error
  }
}

/** The ledger beside a gateway that may be running; for keys only. */
export function openKeyLedger(dataDir: string): Promise<Ledger> {
  return openLedger({ dataDir, log: silentLog, access: 'shared' })
}

/** Probes every configured runtime in a data directory of its own, which is gone afterwards. */
export async function probeRuntimes(config: Config, log: LogSink): Promise<readonly RuntimeStatus[]> {
  await using cleanup = new Cleanup()
  const dataDir = await mkdtemp(join(tmpdir(), 'faas-probe-'))
  cleanup.add(() => rm(dataDir, { recursive: true, force: true }))
  await chmod(dataDir, 0o711)
  await mkdir(join(dataDir, 'run'))
  const { drivers } = makeDrivers(config, dataDir, log, cleanup)
  const signal = AbortSignal.timeout(60_000)
  // Awaited here: the clean-up runs when this function returns.
  return await Promise.all(drivers.map(async (driver) => ({
    name: driver.name, isolation: driver.features.isolation, features: driver.features, probe: await probeDriver(driver, log, signal), probedAtMs: systemClock.nowMs(),
  })))
}

/** Serves until a signal. @returns the exit code of the process */
export async function runGateway(argv: readonly string[], environment: Readonly<Record<string, string | undefined>>): Promise<number> {
  const stop = new StopSignals()
  const restoreSignals = takeSignals(() => stop.ask())
  try {
    const { config, warnings } = loadConfig(argv, environment)
    const destination = pino.destination({ dest: 2, sync: false })
    const log = pino({ level: config.logLevel }, destination)
    try {
      for (const warning of warnings) log.warn(warning)
      await using platform = await openPlatform(config, log)
      await serve({
        ...platform, config, clock: systemClock, ids: systemIds, log, version: VERSION, stop,
        onListening: (url) => void process.stdout.write(`Serving on ${url} (documentation: ${url}/docs)\n`),
      })
      return 0
    } finally {
      destination.flushSync()
    }
  } catch (thrown) {
    const error = toFaasError(thrown)
    process.stderr.write(`${error.message}${error.hint === undefined ? '' : `\n${error.hint}`}\n`)
    if (error.kind === 'internal') process.stderr.write(`${String(error.cause instanceof Error ? error.cause.stack : error.cause)}\n`)
    return error.code === 'config/invalid' ? EXIT_CONFIG : EXIT_FAILED
  } finally {
    restoreSignals()
  }
}

function makeDrivers(config: Config, dataDir: string, log: LogSink, cleanup: Cleanup): { readonly drivers: readonly RuntimeDriver[]; readonly stores: ReadonlyMap<string, ImageStore> } {
  const tools = toolsDir(config)
  const bin = join(tools, 'bin')
  // Runtimes find their own helpers (criu, iptables-restore) by PATH.
  if (!(process.env['PATH'] ?? '').split(delimiter).includes(bin)) process.env['PATH'] = `${bin}${delimiter}${process.env['PATH'] ?? ''}`
  const agentPath = builtBinary(tools, 'faas-agent')
  const hostkitPath = builtBinary(tools, 'faas-hostkit')
  const nftPath = runtimeBinary(bin, 'nft')
  const guard = new RegistryGuard(config.privateRegistries.length === 0 && !areKeysDemanded(config) ? ['*'] : config.privateRegistries)
  const checkRegistry = (host: string): Promise<void> => guard.check(host)
  const credentials = config.registryAuthFile === null ? undefined : dockerConfigCredentials(config.registryAuthFile)
  const drivers: RuntimeDriver[] = []
  const stores = new Map<string, ImageStore>()
  const hostkit = cleanup.use(new HostKit({ path: hostkitPath, log, lockPath: join(dataDir, 'run', 'hostkit.lock') }))
  const egress = existsSync(nftPath) ? cleanup.use(new EgressNetworks({ ownerId: dataDirId(dataDir), hostkit, nftPath, log })) : undefined
  for (const name of config.runtimes) {
    if (name === 'docker') {
      const driver = cleanup.use(new DockerDriver({
        socketPath: config.dockerSocket, dataDir, dataDirId: dataDirId(dataDir), agentPath, clock: systemClock, ids: systemIds, log,
        ...(existsSync(hostkitPath) && { hostkit }), ...(existsSync(nftPath) && { nftPath }), checkRegistry,
        ...(credentials !== undefined && { credentials: (registry: string) => credentials(registry, AbortSignal.timeout(CREDENTIALS_MS_MAX)) }),
      }))
      drivers.push(driver)
      stores.set('docker', driver.images)
    } else if (name in BINARIES) {
      const ociName = name as OciRuntimeName
      const known = stores.get('oci')
      const images = known instanceof OciImageStore ? known : cleanup.use(new OciImageStore({
        dir: join(dataDir, 'images'), hostkitPath, log, registry: { checkHost: checkRegistry, ...(credentials !== undefined && { credentials }) },
      }))
      stores.set('oci', images)
      drivers.push(cleanup.use(createOciDriver({
        name: ociName, runtimePath: runtimeBinary(bin, BINARIES[ociName]), dataDir, images, hostkit, hostkitPath, agentPath, log, ...(egress !== undefined && { egress }),
      })))
    } else {
      log.warn({ runtime: name }, 'this runtime has no driver in this version')
    }
  }
  return { drivers, stores }
}

function familyOf(runtime: string): string {
  return runtime === 'docker' ? 'docker' : 'oci'
}

/** Where runtimes, helpers and built images are looked for. */
export function toolsDir(config: Config): string {
  if (config.toolsDir !== null) return config.toolsDir
  // From `apps/gateway/{src,dist}` up to the checkout that holds it.
  for (let dir = dirname(fileURLToPath(import.meta.url)); dir !== dirname(dir); dir = dirname(dir)) {
    if (existsSync(join(dir, '.tools'))) return join(dir, '.tools')
  }
  return '/usr/local/lib/faas'
}

/** Linked among the tools by the set-up; in a checkout without it, where cargo puts it. */
function builtBinary(tools: string, name: string): string {
  const linked = join(tools, 'bin', name)
  const built = join(dirname(tools), 'agent', 'target', 'release', name)
  return !existsSync(linked) && existsSync(built) ? built : linked
}

function runtimeBinary(bin: string, name: string): string {
  const candidates = [bin, ...(process.env['PATH'] ?? '').split(delimiter)].map((dir) => join(dir, name))
  return candidates.find((path) => existsSync(path)) ?? join(bin, name)
}

// The path may lead through a link, as that of a checkout; the module's own never does.
if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.exitCode = await runGateway(process.argv.slice(2), process.env)
}
