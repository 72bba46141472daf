/**
 * What a sandbox is allowed to be: the OCI configuration that every runtime of this driver gets.
 *
 * I1. The agent is the first process; it alone speaks to the host.
 * I2. No mount besides what is listed here: each one costs a checkpoint time, and each is a way to something.
 * I3. Capabilities, memory and OOM settings are the platform's, the same in every driver.
 */
import { readFileSync } from 'node:fs'
import { SANDBOX_CAPABILITIES, SANDBOX_OOM_SCORE_ADJ, SANDBOX_SHM_BYTES, type SandboxSpec } from '@faas-platform/core'
import { CPU_PERIOD_US } from '@faas-platform/host'
import type { LinuxSeccomp, Mount, RuntimeConfig } from './runtime-spec.js'
import { SECCOMP_PROFILE } from './seccomp-profile.js'

export const AGENT_DIR = '.faas'
export const AGENT_SOCKET = 'agent.sock'
export const READY_LINE = 'faas-agent ready'
/** Ids that a sandbox's user namespace has. */
export const IDS_PER_SANDBOX = 65_536

const MOUNTS: readonly Mount[] = [
  { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
  { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'noexec', 'strictatime', 'mode=755', 'size=1m'] },
  { destination: '/dev/pts', type: 'devpts', source: 'devpts', options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'] },
  { destination: '/dev/shm', type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', `size=${SANDBOX_SHM_BYTES}`] },
  { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', 'ro'] },
]

const MASKED_PATHS = [
  '/proc/acpi', '/proc/asound', '/proc/interrupts', '/proc/kcore', '/proc/keys', '/proc/latency_stats', '/proc/sched_debug',
  '/proc/scsi', '/proc/timer_list', '/proc/timer_stats', '/sys/devices/virtual/powercap', '/sys/firmware',
]
const READONLY_PATHS = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger']

const NOFILE_SOFT = 65_536
const NOFILE_HARD = 524_288

const SECCOMP_ARCHITECTURE: Readonly<Record<string, string>> = { x64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' }

export interface ConfigOptions {
  readonly cgroupsPath: string | null
  readonly agentArgs: readonly string[]
  /** First host id of the sandbox's user namespace; null for none. */
  readonly idBase: number | null
  /** Path of a prepared network namespace; null: the runtime makes an empty one. */
  readonly netnsPath: string | null
  /** Path of the user namespace that owns the network namespace; null: the runtime makes one when ids are mapped. */
  readonly usernsPath: string | null
  readonly seccomp: boolean
  readonly swapLimited: boolean
  readonly rootPath: string
}

export function runtimeConfig(spec: SandboxSpec, options: ConfigOptions): RuntimeConfig {
  const { limits } = spec
  const mapping = options.idBase === null ? null : [{ containerID: 0, hostID: options.idBase, size: IDS_PER_SANDBOX }]
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: [`/${AGENT_DIR}/agent`, ...options.agentArgs],
      env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      cwd: '/',
      capabilities: { bounding: SANDBOX_CAPABILITIES, effective: SANDBOX_CAPABILITIES, permitted: SANDBOX_CAPABILITIES },
      rlimits: [
        { type: 'RLIMIT_NOFILE', soft: Math.min(NOFILE_SOFT, hostNofileMax()), hard: Math.min(NOFILE_HARD, hostNofileMax()) },
        // No core dumps: the host's core_pattern may name a program that would run on the host.
        { type: 'RLIMIT_CORE', soft: 0, hard: 0 },
      ],
      noNewPrivileges: true,
      oomScoreAdj: SANDBOX_OOM_SCORE_ADJ,
    },
    root: { path: options.rootPath, readonly: false },
    hostname: spec.hostname,
    mounts: MOUNTS,
    linux: {
      namespaces: [
        { type: 'pid' },
        { type: 'mount' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'cgroup' },
        options.netnsPath === null ? { type: 'network' } : { type: 'network', path: options.netnsPath },
        ...(mapping === null ? [] : [options.usernsPath === null ? { type: 'user' } : { type: 'user', path: options.usernsPath }]),
      ],
      // A namespace that exists has its mapping.
      ...(mapping === null || options.usernsPath !== null ? {} : { uidMappings: mapping, gidMappings: mapping }),
      ...(options.cgroupsPath === null
        ? {}
        : {
            cgroupsPath: options.cgroupsPath,
            resources: {
              devices: [{ allow: false, access: 'rwm' }],
              // As much of both together as of memory alone: no swap.
              memory: { limit: limits.memoryBytes, ...(options.swapLimited ? { swap: limits.memoryBytes } : {}) },
              cpu: { quota: Math.max(1000, Math.round(limits.cpuCores * CPU_PERIOD_US)), period: CPU_PERIOD_US },
              pids: { limit: limits.pidsMax },
            },
          }),
      ...(options.seccomp ? { seccomp: nativeProfile() } : {}),
      maskedPaths: MASKED_PATHS,
      readonlyPaths: READONLY_PATHS,
    },
  }
}

/** Our own hard limit: without CAP_SYS_RESOURCE nothing that we start can have more. */
const hostNofileMax = once(() => Number(/^Max open files\s+\S+\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? NOFILE_SOFT))

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | null = null
  return () => (made ??= { value: make() }).value
}

/** 64-bit programs only: one architecture halves the filter and leaves out the compatibility entry points. */
function nativeProfile(): LinuxSeccomp {
  const architecture = SECCOMP_ARCHITECTURE[process.arch]
  return architecture === undefined ? SECCOMP_PROFILE : { ...SECCOMP_PROFILE, architectures: [architecture] }
}
