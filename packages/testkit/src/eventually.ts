/** Waiting for a condition with a deadline, the only kind of waiting a test may do. */

export interface EventuallyOptions {
  /** Default 10_000. */
  readonly deadlineMs?: number
  /** Time between two looks. Default 10. */
  readonly everyMs?: number
  /** Said when the deadline passes. */
  readonly what?: string
}

/**
 * Looks again and again until `probe` gives something truthy, and returns it.
 * A throw of `probe` counts as "not yet"; the last one becomes the cause.
 * @throws Error when the deadline passes first.
 */
export async function eventually<T>(probe: () => T | Promise<T>, options: EventuallyOptions = {}): Promise<NonNullable<T>> {
  const deadlineMs = options.deadlineMs ?? 10_000
  const end = performance.now() + deadlineMs
  let last: unknown
  for (;;) {
    try {
      const value = await probe()
      if (value) return value
      last = value
    } catch (error) {
      last = error
    }
    if (performance.now() >= end) {
      throw new Error(`Not within ${deadlineMs} ms: ${options.what ?? 'the condition'} (last: ${String(last)})`, { cause: last })
    }
    await new Promise((resolve) => setTimeout(resolve, options.everyMs ?? 10))
  }
}

/** The value of `promise`, or an error when it takes longer. The promise itself goes on. */
export async function within<T>(deadlineMs: number, what: string, promise: PromiseLike<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`Not within ${deadlineMs} ms: ${what}`)), deadlineMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
