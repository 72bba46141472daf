/** Every setting of the platform, once. Order is the order of the documentation. */
import { GIB, KIB, MIB, RUNTIME_NAMES } from '@faas-platform/core'
import type { HostFacts, Setting } from './setting.js'
import {
  autoSwitchSetting, choiceListSetting, choiceSetting, integerSetting, listSetting, numberSetting, optionalTextSetting, presenceSetting, secretSetting,
  switchSetting, textSetting,
} from './setting.js'

const DAY_MS = 86_400_000
const CONCURRENCY_DOC = '8 per core of the host, at least 16'
const SERVED_RUNTIMES = RUNTIME_NAMES.filter((name) => name !== 'memory')

export const SETTINGS = {
  configFile: optionalTextSetting({
    section: 'server', env: 'FAAS_CONFIG', default: null,
    doc: 'Configuration file, `.toml` or `.json`, with the file keys of this table at its top level.',
  }),
  host: textSetting({
    section: 'server', env: 'FAAS_HOST', default: '127.0.0.1',
    doc: 'Address to listen on. Anything but loopback demands API keys.',
  }),
  port: integerSetting({ section: 'server', env: 'FAAS_PORT', unit: 'count', min: 0, max: 65_535, default: 8080, doc: 'TCP port; `0` takes a free one.' }),
  dataDir: textSetting({
    section: 'server', env: 'FAAS_DATA_DIR', default: defaultDataDir,
    defaultDoc: '`/var/lib/faas` for root, else `$XDG_DATA_HOME/faas` or `~/.local/share/faas`',
    doc: 'Ledger, images, logs, retained states and sandboxes live here. One gateway per directory.',
  }),
  logLevel: choiceSetting({
    section: 'server', env: 'FAAS_LOG_LEVEL', choices: ['trace', 'debug', 'info', 'warn', 'error', 'silent'], default: 'info',
    doc: 'Least severe level that is logged, as JSON lines on standard error.',
  }),
  drainMs: integerSetting({
    section: 'server', env: 'FAAS_DRAIN_MS', unit: 'ms', min: 0, max: DAY_MS, default: 30_000,
    doc: 'At shutdown, how long running executions may take to end before they are cancelled.',
  }),
  bodyBytesMax: integerSetting({
    section: 'server', env: 'FAAS_MAX_BODY_BYTES', unit: 'bytes', min: KIB, max: GIB, default: 2 * MIB,
    doc: 'Largest accepted request body.',
  }),
  streamsMax: integerSetting({
    section: 'server', env: 'FAAS_MAX_STREAMS', unit: 'count', min: 1, max: 100_000, default: 1000,
    doc: 'Event streams and WebSockets open at a time.',
  }),

  requireKeys: autoSwitchSetting({
    section: 'access', env: 'FAAS_REQUIRE_KEYS', default: 'auto',
    doc: 'Demand an API key. `auto`: when the address is not loopback. `false` on another address opens the gateway to everybody who can reach it.',
  }),
  corsOrigins: listSetting({
    section: 'access', env: 'FAAS_CORS_ORIGINS', default: [],
    doc: 'Web origins (`https://host`) whose pages may call the API; `*` allows all and needs API keys. Empty: none.',
  }),
  allowedHosts: listSetting({
    section: 'access', env: 'FAAS_ALLOWED_HOSTS', default: [],
    doc: 'More names that the `Host` header may have while no API key is demanded, besides loopback names and the listen address.',
  }),

  defaultImage: textSetting({ section: 'runtimes', env: 'FAAS_DEFAULT_IMAGE', default: 'faas/base:latest', doc: 'Image of a request that names none.' }),
  defaultRuntime: choiceSetting({
    section: 'runtimes', env: 'FAAS_DEFAULT_RUNTIME', choices: ['auto', ...SERVED_RUNTIMES], default: 'auto',
    doc: 'Runtime of a request that names none.',
  }),
  runtimes: choiceListSetting({
    section: 'runtimes', env: 'FAAS_RUNTIMES', choices: SERVED_RUNTIMES, default: ['crun', 'runc', 'gvisor', 'docker'],
    doc: 'Runtimes that are probed at start; those found usable are served.',
  }),
  runtimeOrder: choiceSetting({
    section: 'runtimes', env: 'FAAS_RUNTIME_ORDER', choices: ['auto', 'listed', 'strongest'], default: 'auto',
    doc: 'What `auto` prefers: runtimes as `FAAS_RUNTIMES` lists them (its default has the fastest first), or the strongest isolation first. `auto`: the strongest where API keys are demanded, so that callers are not all trusted; else as listed.',
  }),
  allowVulnerableRuntimes: switchSetting({
    section: 'runtimes', env: 'FAAS_ALLOW_VULNERABLE_RUNTIMES', default: false,
    doc: 'Serve runtimes whose version has a known escape. For trusted code only.',
  }),
  defaultNetwork: choiceSetting({
    section: 'runtimes', env: 'FAAS_DEFAULT_NETWORK', choices: ['none', 'egress'], default: 'none',
    doc: 'Network policy of a request that names none. `egress` is outbound only, without private ranges, host loopback and metadata addresses.',
  }),
  privateRegistries: listSetting({
    section: 'runtimes', env: 'FAAS_PRIVATE_REGISTRIES', default: [],
    doc: 'Registries (`host` or `host:port`) that images may be pulled from although they are on this host or a private network; `*` for all. Empty: all where no API keys are demanded, none where they are.',
  }),
  registryAuthFile: optionalTextSetting({
    section: 'runtimes', env: 'FAAS_REGISTRY_AUTH_FILE', default: null,
    doc: 'Credentials for registries, in the form of Docker’s `config.json`. Every caller may then run what they open.',
  }),
  dockerSocket: textSetting({ section: 'runtimes', env: 'FAAS_DOCKER_SOCKET', default: '/var/run/docker.sock', doc: 'Socket of the Docker Engine API.' }),
  toolsDir: optionalTextSetting({
    section: 'runtimes', env: 'FAAS_TOOLS_DIR', default: null, defaultDoc: '`.tools` of the checkout',
    doc: 'Directory with `bin/` (runc, crun, runsc, nft, the guest agent …) and `images/`; `bin/` is searched before `PATH`.',
  }),
  standIns: choiceSetting({
    section: 'runtimes', env: 'FAAS_STAND_INS', choices: ['auto', 'never'], default: 'auto',
    doc: 'Whether locally built images may answer to names such as `alpine:latest` while nothing is stored under that name. Results say so.',
  }),

  defaultTimeoutMs: integerSetting({ section: 'limits', env: 'FAAS_DEFAULT_TIMEOUT_MS', unit: 'ms', min: 1, max: DAY_MS, default: 30_000, doc: 'Wall time of a request that names none.' }),
  timeoutMsMax: integerSetting({ section: 'limits', env: 'FAAS_MAX_TIMEOUT_MS', unit: 'ms', min: 1, max: 7 * DAY_MS, default: 3_600_000, doc: 'Longest wall time that a request may ask for.' }),
  defaultMemoryMib: integerSetting({ section: 'limits', env: 'FAAS_DEFAULT_MEMORY_MB', unit: 'MiB', min: 8, max: 1_048_576, default: 512, doc: 'Memory of a sandbox when the request names none.' }),
  memoryMibMax: integerSetting({
    section: 'limits', env: 'FAAS_MAX_MEMORY_MB', unit: 'MiB', min: 8, max: 1_048_576,
    default: (host) => Math.max(512, Math.floor(host.totalMemoryBytes / MIB)), defaultDoc: 'memory of the host',
    doc: 'Most memory that a request may ask for.',
  }),
  defaultCpuCores: numberSetting({ section: 'limits', env: 'FAAS_DEFAULT_CPU_CORES', unit: 'cores', min: 0.01, max: 1024, default: 1, doc: 'CPU of a sandbox when the request names none.' }),
  cpuCoresMax: numberSetting({
    section: 'limits', env: 'FAAS_MAX_CPU_CORES', unit: 'cores', min: 0.01, max: 1024, default: (host) => Math.max(1, host.cpuCount), defaultDoc: 'cores of the host',
    doc: 'Most CPU that a request may ask for.',
  }),
  defaultPids: integerSetting({ section: 'limits', env: 'FAAS_DEFAULT_PIDS', unit: 'count', min: 4, max: 4_194_304, default: 256, doc: 'Processes and threads in a sandbox when the request names no number.' }),
  pidsMax: integerSetting({ section: 'limits', env: 'FAAS_MAX_PIDS', unit: 'count', min: 4, max: 4_194_304, default: 4096, doc: 'Most processes and threads that a request may ask for.' }),
  defaultDiskMib: integerSetting({ section: 'limits', env: 'FAAS_DEFAULT_DISK_MB', unit: 'MiB', min: 1, max: 16_777_216, default: 1024, doc: 'What a sandbox may write to its file system when the request names no number.' }),
  diskMibMax: integerSetting({ section: 'limits', env: 'FAAS_MAX_DISK_MB', unit: 'MiB', min: 1, max: 16_777_216, default: 10_240, doc: 'Most writable space that a request may ask for.' }),
  outputBytesDefault: integerSetting({ section: 'limits', env: 'FAAS_DEFAULT_OUTPUT_BYTES', unit: 'bytes', min: 1, max: GIB, default: MIB, doc: 'Bytes of each stream in a reply, head and tail, when the request names no number.' }),
  outputBytesMax: integerSetting({ section: 'limits', env: 'FAAS_MAX_OUTPUT_BYTES', unit: 'bytes', min: 1, max: GIB, default: 16 * MIB, doc: 'Most bytes of each stream that a request may ask for in its reply.' }),
  logBytesMax: integerSetting({ section: 'limits', env: 'FAAS_MAX_LOG_BYTES', unit: 'bytes', min: KIB, max: 1024 * GIB, default: 64 * MIB, doc: 'Full log of one execution; a command that writes more is ended.' }),

  concurrencyMax: integerSetting({
    section: 'admission', env: 'FAAS_MAX_CONCURRENCY', unit: 'count', min: 1, max: 100_000, default: concurrencyOf, defaultDoc: CONCURRENCY_DOC,
    doc: 'Commands that run at a time; more wait in the queue.',
  }),
  queueMax: integerSetting({ section: 'admission', env: 'FAAS_MAX_QUEUE', unit: 'count', min: 0, max: 1_000_000, default: 1024, doc: 'Requests that wait for their turn at a time; more are refused with 429.' }),
  principalConcurrencyMax: integerSetting({
    section: 'admission', env: 'FAAS_MAX_PER_PRINCIPAL', unit: 'count', min: 1, max: 100_000, default: concurrencyOf, defaultDoc: CONCURRENCY_DOC,
    doc: 'Commands of one principal that run at a time.',
  }),
  principalOutstandingMax: integerSetting({ section: 'admission', env: 'FAAS_MAX_OUTSTANDING', unit: 'count', min: 1, max: 1_000_000, default: 1024, doc: 'Commands of one principal that wait or run; more are refused with 429.' }),
  asyncQueueMax: integerSetting({ section: 'admission', env: 'FAAS_MAX_ASYNC', unit: 'count', min: 0, max: 10_000_000, default: 10_000, doc: 'Asynchronous executions accepted and not ended.' }),
  instancesMax: integerSetting({ section: 'admission', env: 'FAAS_MAX_INSTANCES', unit: 'count', min: 0, max: 100_000, default: 32, doc: 'Instances that one principal may have.' }),
  instanceIdleMs: integerSetting({ section: 'admission', env: 'FAAS_INSTANCE_IDLE_MS', unit: 'ms', min: 1000, max: 365 * DAY_MS, default: 3_600_000, doc: 'An instance without an execution for this long is stopped, unless it was created with another time.' }),

  disablePrewarm: presenceSetting({ section: 'pool', env: 'FAAS_DISABLE_PREWARM', default: false, doc: 'Keep no warm sandboxes: all are made on request, and `prewarm` is refused. Any value but `0`, `false`, `no`, `off` turns it on.' }),
  poolMemoryMib: integerSetting({
    section: 'pool', env: 'FAAS_POOL_MEMORY_MB', unit: 'MiB', min: 0, max: 16_777_216,
    default: (host) => Math.min(2048, Math.floor(host.totalMemoryBytes / MIB / 4)), defaultDoc: 'a quarter of the memory of the host, at most 2048',
    doc: 'Memory that all warm sandboxes together may take.',
  }),
  poolIdleMs: integerSetting({ section: 'pool', env: 'FAAS_POOL_IDLE_MS', unit: 'ms', min: 1000, max: DAY_MS, default: 60_000, doc: 'A warm sandbox above the prewarmed number goes after this long without demand.' }),
  poolSizeMax: integerSetting({ section: 'pool', env: 'FAAS_POOL_MAX', unit: 'count', min: 1, max: 10_000, default: 16, doc: 'Warm sandboxes of one kind (runtime, image, limits, network).' }),
  prewarmCount: integerSetting({ section: 'pool', env: 'FAAS_PREWARM', unit: 'count', min: 0, max: 1000, default: 2, doc: 'Warm sandboxes of the default image that are made at start and kept.' }),

  retainMs: integerSetting({ section: 'retention', env: 'FAAS_RETAIN_MS', unit: 'ms', min: 0, max: 30 * DAY_MS, default: 900_000, doc: 'How long the end state (written files) of an execution stays addressable by its request id; `0` keeps none.' }),
  retainBytesMax: integerSetting({ section: 'retention', env: 'FAAS_RETAIN_BYTES', unit: 'bytes', min: 0, max: Number.MAX_SAFE_INTEGER, default: 512 * MIB, doc: 'Total size of retained end states; the oldest go first.' }),
  retainEntryBytesMax: integerSetting({ section: 'retention', env: 'FAAS_RETAIN_ENTRY_BYTES', unit: 'bytes', min: 0, max: Number.MAX_SAFE_INTEGER, default: 128 * MIB, doc: 'An end state larger than this is not retained.' }),
  retainCountMax: integerSetting({ section: 'retention', env: 'FAAS_RETAIN_COUNT', unit: 'count', min: 0, max: 1_000_000, default: 64, doc: 'Retained end states; the oldest go first.' }),
  recordsKeepMs: integerSetting({ section: 'retention', env: 'FAAS_KEEP_RECORDS_MS', unit: 'ms', min: 60_000, max: 3650 * DAY_MS, default: 7 * DAY_MS, doc: 'How long records and logs of ended executions are kept.' }),
  recordsMax: integerSetting({ section: 'retention', env: 'FAAS_KEEP_RECORDS', unit: 'count', min: 100, max: 1_000_000_000, default: 200_000, doc: 'Records of ended executions; the oldest go first.' }),
  logsTotalBytesMax: integerSetting({ section: 'retention', env: 'FAAS_KEEP_LOG_BYTES', unit: 'bytes', min: MIB, max: Number.MAX_SAFE_INTEGER, default: 2 * GIB, doc: 'Total size of kept logs; the oldest go first.' }),
  idempotencyKeepMs: integerSetting({ section: 'retention', env: 'FAAS_KEEP_IDEMPOTENCY_MS', unit: 'ms', min: 60_000, max: 30 * DAY_MS, default: DAY_MS, doc: 'How long an idempotency key is remembered.' }),

  url: textSetting({ section: 'client', env: 'FAAS_URL', default: 'http://127.0.0.1:8080', doc: 'Gateway that the `faas` command talks to.' }),
  apiKey: secretSetting({ section: 'client', env: 'FAAS_API_KEY', default: null, doc: 'API key that the `faas` command sends.' }),
} as const satisfies Record<string, Setting<never> | Setting<unknown>>

export type SettingKey = keyof typeof SETTINGS
export const SETTING_KEYS = Object.keys(SETTINGS) as readonly SettingKey[]

type ValueOf<S> = S extends { defaultValue(host: HostFacts): infer T } ? T : never
/** The whole parsed, frozen configuration. */
export type Config = { readonly [K in SettingKey]: ValueOf<(typeof SETTINGS)[K]> }

/** `FAAS_MAX_BODY_BYTES` → `--max-body-bytes`. */
export function flagOf(setting: { readonly env: string }): string {
  return `--${fileKeyOf(setting).replaceAll('_', '-')}`
}

/** `FAAS_MAX_BODY_BYTES` → `max_body_bytes`. */
export function fileKeyOf(setting: { readonly env: string }): string {
  return setting.env.replace(/^FAAS_/, '').toLowerCase()
}

function concurrencyOf(host: HostFacts): number {
  return Math.max(16, host.cpuCount * 8)
}

function defaultDataDir(host: HostFacts): string {
  if (host.isRoot) return '/var/lib/faas'
  return `${host.xdgDataHome ?? `${host.homeDir}/.local/share`}/faas`
}
