/**
 * Life cycles as tables; one function changes a state.
 *
 * I1. A transition that the table does not list is a bug and throws.
 * I2. Every change raises `incarnation`, so that a late callback can tell that it speaks of an older life.
 */
import { bug } from './errors.js'

type Table = Readonly<Record<string, readonly string[]>>

/** One accepted command from admission to its end. */
export const EXECUTION_STATES = {
  queued: ['starting', 'cancelled', 'failed', 'timed_out'],
  starting: ['running', 'queued', 'cancelled', 'failed', 'timed_out'],
  running: ['succeeded', 'failed', 'timed_out', 'cancelled', 'queued'],
  succeeded: [],
  failed: [],
  timed_out: [],
  cancelled: [],
} as const satisfies Table
export type ExecutionState = keyof typeof EXECUTION_STATES

/** One isolated environment, as its driver sees it. */
export const SANDBOX_STATES = {
  creating: ['ready', 'destroying'],
  ready: ['pausing', 'destroying', 'lost'],
  pausing: ['paused', 'ready', 'destroying', 'lost'],
  paused: ['resuming', 'destroying', 'lost'],
  resuming: ['ready', 'paused', 'destroying', 'lost'],
  lost: ['destroying'],
  destroying: ['destroyed'],
  destroyed: [],
} as const satisfies Table
export type SandboxState = keyof typeof SANDBOX_STATES

/** One place in the warm pool. */
export const SLOT_STATES = {
  creating: ['ready', 'failed'],
  ready: ['taken', 'evicting'],
  taken: [],
  evicting: ['gone'],
  failed: [],
  gone: [],
} as const satisfies Table
export type SlotState = keyof typeof SLOT_STATES

/** A named sandbox that lives on. */
export const INSTANCE_STATES = {
  creating: ['running', 'failed', 'stopping'],
  running: ['pausing', 'stopping', 'failed'],
  pausing: ['paused', 'running', 'failed'],
  paused: ['resuming', 'stopping', 'failed'],
  resuming: ['running', 'paused', 'failed'],
  stopping: ['stopped', 'failed'],
  stopped: ['creating'],
  failed: ['stopping'],
} as const satisfies Table
export type InstanceState = keyof typeof INSTANCE_STATES

export interface Lifecycle<S extends string> {
  readonly state: S
  readonly incarnation: number
}

export function canTransition<T extends Table>(table: T, from: keyof T & string, to: keyof T & string): boolean {
  return table[from]?.includes(to) === true
}

/** @throws FaasError `internal/bug` when the table does not allow the step. */
export function transition<T extends Table, S extends keyof T & string>(table: T, life: Lifecycle<S>, to: S): Lifecycle<S> {
  if (!canTransition(table, life.state, to)) bug(`A life cycle can not go from ${life.state} to ${to}.`)
  return { state: to, incarnation: life.incarnation + 1 }
}

/** A state without a way out. */
export function isFinal<T extends Table>(table: T, state: keyof T & string): boolean {
  return table[state]?.length === 0
}
