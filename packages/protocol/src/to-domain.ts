/**
 * Wire bodies → domain requests: the one place where wire units and spellings become the domain's.
 *
 * I1. A maximum is never clamped silently: asking for more is an error that names the maximum.
 * I2. Every problem of a body is reported together.
 */
import { Buffer } from 'node:buffer'
import { isIP } from 'node:net'
import type {
  ExecuteRequest, ExecutionMode, InstanceId, IsolationClass, NetworkPolicy, RuntimeChoice, SandboxLimits, SnapshotId,
} from '@faas-platform/core'
import { asId, mibToBytes } from '@faas-platform/core'
import type { CreateInstanceBody, ExecuteBody, InstanceExecBody, PrewarmBody } from './execute-body.js'
import type { RequestIssue } from './validate.js'
import { invalidRequest } from './validate.js'

/** What a request that names nothing gets, and the most that one may ask for. */
export interface WirePolicy {
  readonly image: string
  readonly runtime: RuntimeChoice
  readonly timeoutMs: number
  readonly timeoutMsMax: number
  readonly limits: SandboxLimits
  readonly limitsMax: SandboxLimits
  readonly network: NetworkPolicy['mode']
  readonly outputBytes: number
  readonly outputBytesMax: number
  readonly logBytesMax: number
}

/** Where and under which limits a sandbox is made. */
export interface Placement {
  readonly image: string
  readonly runtime: RuntimeChoice
  readonly isolationFloor: IsolationClass
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
}

/** @throws FaasError `request/invalid` */
export function toExecuteRequest(body: ExecuteBody, policy: WirePolicy): ExecuteRequest {
  const issues: RequestIssue[] = []
  const command = commandOf(body, policy, issues)
  const placement = placementOf(body, policy, issues)
  const mode = modeOf(body, issues)
  if (body.async === true && body.stream === true) issues.push({ path: '/stream', message: 'can not go together with async; read GET /api/v1/executions/{id}/stream instead' })
  if (issues.length > 0) throw invalidRequest(issues)
  return {
    ...command,
    ...placement,
    mode,
    rerunnable: body.rerunnable ?? true,
    ...(given(body.cache_key) && { cacheKey: body.cache_key }),
    ...(given(body.snapshot_id) && { snapshotId: asId<SnapshotId>(body.snapshot_id) }),
    ...(given(body.branch_from) && { branchFrom: body.branch_from }),
    ...(given(body.instance_id) && { instanceId: asId<InstanceId>(body.instance_id) }),
  }
}

/**
 * A command for an instance; image, limits and network are the instance's own and only stand in here.
 * @throws FaasError `request/invalid`
 */
export function toInstanceExecRequest(body: InstanceExecBody, instanceId: InstanceId, policy: WirePolicy): ExecuteRequest {
  const issues: RequestIssue[] = []
  const command = commandOf(body, policy, issues)
  if (issues.length > 0) throw invalidRequest(issues)
  return { ...command, ...placementOf({}, policy, issues), mode: 'persistent', rerunnable: false, instanceId }
}

/** @throws FaasError `request/invalid` */
export function toPlacement(body: PrewarmBody | CreateInstanceBody, policy: WirePolicy): Placement {
  const issues: RequestIssue[] = []
  const placement = placementOf(body, policy, issues)
  if (issues.length > 0) throw invalidRequest(issues)
  return placement
}

/** @throws FaasError `request/invalid` */
export function toEnv(envVars: CreateInstanceBody['env_vars']): Readonly<Record<string, string>> {
  const issues: RequestIssue[] = []
  const env = envOf(envVars, issues)
  if (issues.length > 0) throw invalidRequest(issues)
  return env
}

const MODE_OF_SOURCE = [['instance_id', 'persistent'], ['branch_from', 'branched'], ['snapshot_id', 'checkpointed']] as const

/** The mode, or the one that a source asks for. A source that the mode would not use is a mistake: running without it would hide it. */
function modeOf(body: ExecuteBody, issues: RequestIssue[]): ExecutionMode {
  const asked = MODE_OF_SOURCE.filter(([field]) => given(body[field]))
  const mode = body.mode ?? asked[0]?.[1] ?? 'ephemeral'
  for (const [field, needed] of asked) {
    if (needed !== mode) issues.push({ path: `/${field}`, message: `needs mode "${needed}"` })
  }
  return mode
}

function commandOf(body: InstanceExecBody, policy: WirePolicy, issues: RequestIssue[]) {
  const argv = typeof body.command === 'string' ? ['/bin/sh', '-c', body.command] : body.command
  if (argv.some((argument) => argument.includes('\0'))) issues.push({ path: '/command', message: 'must not hold a NUL character' })
  if (argv[0] === '') issues.push({ path: '/command/0', message: 'must not be empty' })
  const cwd = body.working_dir ?? undefined
  if (cwd !== undefined && !cwd.startsWith('/')) issues.push({ path: '/working_dir', message: 'must be an absolute path' })
  if (cwd?.includes('\0') === true) issues.push({ path: '/working_dir', message: 'must not hold a NUL character' })
  const user = body.user ?? undefined
  if (user !== undefined && /[\0\n]/.test(user)) issues.push({ path: '/user', message: 'must not hold a NUL character or a line end' })
  const stdin = stdinOf(body, issues)
  return {
    argv,
    env: envOf(body.env_vars, issues),
    timeoutMs: atMost(body.timeout_ms, policy.timeoutMs, policy.timeoutMsMax, '/timeout_ms', issues),
    outputBytesMax: atMost(body.output_bytes_max, policy.outputBytes, policy.outputBytesMax, '/output_bytes_max', issues),
    logBytesMax: atMost(body.log_bytes_max, policy.logBytesMax, policy.logBytesMax, '/log_bytes_max', issues),
    labels: body.labels ?? {},
    ...(cwd !== undefined && { cwd }),
    ...(user !== undefined && { user }),
    ...(stdin !== undefined && { stdin }),
  }
}

type PlacementFields = Pick<ExecuteBody, 'image' | 'runtime' | 'isolation' | 'memory_mb' | 'cpu_cores' | 'limits' | 'network'>

function placementOf(body: PlacementFields, policy: WirePolicy, issues: RequestIssue[]): Placement {
  return {
    image: body.image ?? policy.image,
    runtime: body.runtime ?? policy.runtime,
    isolationFloor: body.isolation ?? 'none',
    limits: limitsOf(body, policy, issues),
    network: networkOf(body.network, policy, issues),
  }
}

function limitsOf(body: PlacementFields, policy: WirePolicy, issues: RequestIssue[]): SandboxLimits {
  const limits = body.limits ?? {}
  const memoryMib = agreed(body.memory_mb, limits.memory_mb, 'memory_mb', issues)
  const cpuCores = agreed(body.cpu_cores, limits.cpu_cores, 'cpu_cores', issues)
  const { limits: usual, limitsMax: most } = policy
  return {
    memoryBytes: atMost(toBytes(memoryMib), usual.memoryBytes, most.memoryBytes, given(body.memory_mb) ? '/memory_mb' : '/limits/memory_mb', issues, MIB_UNIT),
    cpuCores: atMost(cpuCores, usual.cpuCores, most.cpuCores, given(body.cpu_cores) ? '/cpu_cores' : '/limits/cpu_cores', issues),
    pidsMax: atMost(limits.pids, usual.pidsMax, most.pidsMax, '/limits/pids', issues),
    writableBytesMax: atMost(toBytes(limits.disk_mb), usual.writableBytesMax, most.writableBytesMax, '/limits/disk_mb', issues, MIB_UNIT),
  }
}

/** The original's field and the newer one mean the same; two different values are a mistake, not a preference. */
function agreed(flat: number | null | undefined, nested: number | null | undefined, name: string, issues: RequestIssue[]): number | undefined {
  if (given(flat) && given(nested) && flat !== nested) issues.push({ path: `/limits/${name}`, message: `must not differ from /${name}` })
  return flat ?? nested ?? undefined
}

function networkOf(body: PlacementFields['network'], policy: WirePolicy, issues: RequestIssue[]): NetworkPolicy {
  if (!given(body)) return { mode: policy.network, allowCidrs: [] }
  if (typeof body === 'string') return { mode: body, allowCidrs: [] }
  const allowCidrs = body.allow ?? []
  if (body.mode === 'none' && allowCidrs.length > 0) issues.push({ path: '/network/allow', message: 'needs mode "egress"' })
  allowCidrs.forEach((cidr, index) => {
    if (!isCidr(cidr)) issues.push({ path: `/network/allow/${index}`, message: 'must be a CIDR such as 10.0.0.0/8' })
  })
  return { mode: body.mode, allowCidrs }
}

function isCidr(text: string): boolean {
  const [address, prefix, ...rest] = text.split('/')
  if (address === undefined || prefix === undefined || rest.length > 0 || !/^\d{1,3}$/.test(prefix)) return false
  const version = isIP(address)
  return version !== 0 && Number(prefix) <= (version === 4 ? 32 : 128)
}

function envOf(envVars: ExecuteBody['env_vars'], issues: RequestIssue[]): Readonly<Record<string, string>> {
  if (!given(envVars)) return {}
  const pairs = Array.isArray(envVars) ? envVars.map(([name = '', value = '']) => [name, value] as const) : Object.entries(envVars)
  for (const [name, value] of pairs) {
    if (name === '' || name.includes('=') || name.includes('\0')) issues.push({ path: '/env_vars', message: `must not have the name ${JSON.stringify(name.slice(0, 80))}` })
    // The value may be a secret: it is not repeated.
    if (value.includes('\0')) issues.push({ path: '/env_vars', message: `must not hold a NUL character in ${JSON.stringify(name.slice(0, 80))}` })
  }
  return Object.fromEntries(pairs)
}

function stdinOf(body: InstanceExecBody, issues: RequestIssue[]): Uint8Array | undefined {
  const { payload, stdin, stdin_base64: encoded } = body
  if ([payload, stdin, encoded].filter(given).length > 1) {
    issues.push({ path: '/stdin', message: 'must be given once: as payload, stdin or stdin_base64' })
    return undefined
  }
  if (given(payload)) return Uint8Array.from(payload)
  if (given(stdin)) return Buffer.from(stdin, 'utf8')
  if (!given(encoded)) return undefined
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(encoded) || encoded.length % 4 !== 0) {
    issues.push({ path: '/stdin_base64', message: 'must be base64 with padding' })
    return undefined
  }
  return Buffer.from(encoded, 'base64')
}

interface DisplayUnit {
  readonly divisor: number
  readonly name: string
}
const MIB_UNIT: DisplayUnit = { divisor: mibToBytes(1), name: ' MiB' }

function atMost(asked: number | null | undefined, usual: number, most: number, path: string, issues: RequestIssue[], unit?: DisplayUnit): number {
  if (!given(asked)) return usual
  if (asked > most) issues.push({ path, message: `must be at most ${unit === undefined ? most : Math.floor(most / unit.divisor)}${unit?.name ?? ''} on this gateway` }) // I1
  return asked
}

function toBytes(mib: number | null | undefined): number | undefined {
  return given(mib) ? mibToBytes(mib) : undefined
}

function given<T>(value: T | null | undefined): value is T {
  return value !== null && value !== undefined
}
