/**
 * Puts faults in front of any port without touching it: fails the n-th call of a method, delays it, or
 * aborts a controller when it is reached. Everything else passes through to the real object.
 */
import type { Clock } from '@faas-platform/core'

export interface Fault {
  /** The method's name. */
  readonly method: string
  /** Which call, counted from 1. Absent: every call. */
  readonly nth?: number
  /** How many calls from `nth` on. Default 1 when `nth` is set. */
  readonly times?: number
  /** Waits before the call goes on. */
  readonly delayMs?: number
  /** Aborted when the call is reached. */
  readonly abort?: AbortController
  /** Thrown instead of calling (`before`), or after the real call took effect (`after`): a lost answer. */
  readonly fail?: { readonly error: unknown; readonly when?: 'before' | 'after' }
}

export interface Injected<T> {
  readonly port: T
  /** Calls seen so far, by method. */
  calls(method: string): number
  add(fault: Fault): void
  clear(): void
}

type Method = (...args: unknown[]) => unknown

export function injectFaults<T extends object>(target: T, clock: Clock, initial: readonly Fault[] = []): Injected<T> {
  let faults: Fault[] = [...initial]
  const counts = new Map<string, number>()

  const wrap = (name: string, method: Method): Method => (...args) => {
    const count = (counts.get(name) ?? 0) + 1
    counts.set(name, count)
    const due = faults.filter((fault) => fault.method === name && applies(fault, count))
    if (due.length === 0) return method.apply(target, args)
    return (async () => {
      for (const fault of due) {
        fault.abort?.abort()
        if (fault.delayMs !== undefined) await clock.delay(fault.delayMs)
        if (fault.fail !== undefined && fault.fail.when !== 'after') throw fault.fail.error
      }
      const result = await method.apply(target, args)
      for (const fault of due) if (fault.fail?.when === 'after') throw fault.fail.error
      return result
    })()
  }

  const port = new Proxy(target, {
    get(object, key) {
      // The receiver is the real object: private fields of a class do not go through a proxy.
      const value: unknown = Reflect.get(object, key, object)
      if (typeof value !== 'function') return value
      return typeof key === 'string' ? wrap(key, value as Method) : (value as Method).bind(object)
    },
  })
  return {
    port,
    calls: (method) => counts.get(method) ?? 0,
    add: (fault) => void faults.push(fault),
    clear: () => void (faults = []),
  }
}

function applies(fault: Fault, count: number): boolean {
  if (fault.nth === undefined) return true
  return count >= fault.nth && count < fault.nth + (fault.times ?? 1)
}
