import type { RuntimeDriver, Sandbox } from '@faas-platform/core'
import type { MemoryDriver } from '@faas-platform/testkit'

/** The same driver, whose idle sandboxes hold this much memory. */
export function ofIdleSize(real: MemoryDriver, memoryBytes: number): RuntimeDriver {
  const of = <T extends object>(target: T, changes: Partial<Record<keyof T, unknown>>): T => new Proxy(target, {
    get: (object, key) => {
      if (key in changes) return changes[key as keyof T]
      const value: unknown = Reflect.get(object, key, object)
      return typeof value === 'function' ? (value as () => unknown).bind(object) : value
    },
  })
  return of<RuntimeDriver>(real, {
    create: async (...args: Parameters<RuntimeDriver['create']>) => {
      const sandbox = await real.create(...args)
      return of<Sandbox>(sandbox, { stats: async () => ({ ...(await sandbox.stats()), memoryBytes }) })
    },
  })
}
