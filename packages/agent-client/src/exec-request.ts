/** Encodes EXEC; "EXEC" in `docs/agent-protocol.md` lists the fields. */
import { FaasError, type ExecSpec } from '@faas-platform/core'
import { FieldWriter, MAX_REQUEST_BYTES } from './wire.js'

export interface ResourceLimit {
  /** Number of the resource as in `setrlimit`, Linux numbering. */
  readonly resource: number
  readonly soft: bigint
  readonly hard: bigint
}

/** What a driver adds to the caller's command. */
export interface ExecOptions {
  readonly signal?: AbortSignal
  readonly rlimits?: readonly ResourceLimit[]
  /** For the command and its children; the agent keeps its own. */
  readonly oomScoreAdj?: number
  readonly umask?: number
  /** Capabilities to keep, one bit each; absent: those of the agent. */
  readonly capabilities?: bigint
  readonly noNewPrivileges?: boolean
  /** Credit per output stream, bytes. Default 256 KiB. */
  readonly windowBytes?: number
  /** Replay buffer per output stream of a kept command, bytes, ≤ 4 MiB. Default 256 KiB. */
  readonly ringBytes?: number
  /** Of a kept command nobody reads: `newest` overwrites the oldest output, `all` slows the command. Default `newest`. */
  readonly keep?: 'newest' | 'all'
  /** How long after its end a silent pipe that others hold open is waited for, ms. Default 200. */
  readonly drainMs?: number
  /** Sets HOME from the guest's accounts when `env` has none. */
  readonly defaultHome?: boolean
}

export const DEFAULT_WINDOW_BYTES = 256 * 1024

/** @throws FaasError `execution/spawn-failed` when it is larger than any kernel would take. */
export function encodeExec(spec: ExecSpec, options: ExecOptions): Buffer {
  const w = new FieldWriter()
  for (const arg of spec.argv) w.text(1, arg)
  for (const [name, value] of Object.entries(spec.env)) w.text(2, `${name}=${value}`)
  if (spec.cwd !== undefined) w.text(3, spec.cwd)
  if (spec.user !== undefined) w.text(4, spec.user)
  if (spec.stdin === 'pipe') w.u8(5, 1)
  else if (spec.stdin instanceof Uint8Array) w.u8(5, 2).bytes(6, spec.stdin)
  if (spec.tty !== undefined) {
    const size = Buffer.allocUnsafe(4)
    size.writeUInt16LE(spec.tty.cols, 0)
    size.writeUInt16LE(spec.tty.rows, 2)
    w.bytes(7, size)
  }
  for (const limit of options.rlimits ?? []) {
    const body = Buffer.allocUnsafe(20)
    body.writeUInt32LE(limit.resource, 0)
    body.writeBigUInt64LE(limit.soft, 4)
    body.writeBigUInt64LE(limit.hard, 12)
    w.bytes(8, body)
  }
  if (options.oomScoreAdj !== undefined) w.i32(9, options.oomScoreAdj)
  if (spec.keepOnDisconnect === true) w.u8(10, options.keep === 'all' ? 2 : 1)
  if (options.umask !== undefined) w.u32(11, options.umask)
  w.u32(12, options.windowBytes ?? DEFAULT_WINDOW_BYTES)
  if (options.ringBytes !== undefined) w.u32(13, options.ringBytes)
  if (options.drainMs !== undefined) w.u32(14, options.drainMs)
  if (options.capabilities !== undefined) w.u64(15, options.capabilities)
  if (options.noNewPrivileges === true) w.u8(16, 1)
  if (options.defaultHome === true) w.u8(17, 1)
  const payload = w.finish()
  if (payload.length > MAX_REQUEST_BYTES) {
    throw new FaasError('execution/spawn-failed', {
      message: 'The arguments, environment and inline stdin are too large together.',
      hint: 'Send large input with `stdin: "pipe"`.',
      details: { reason: 'arguments-too-big', limitBytes: MAX_REQUEST_BYTES, sizeBytes: payload.length },
    })
  }
  return payload
}
