/**
 * One signal that aborts with the first of several, and lets go of them again.
 * `AbortSignal.any` keeps what it made on a source that lives as long as the process; this does not.
 */
import { setMaxListeners } from 'node:events'

export interface LinkedSignals {
  readonly signal: AbortSignal
  release(): void
}

export function linkSignals(...sources: readonly AbortSignal[]): LinkedSignals {
  const controller = new AbortController()
  const onAbort = (event: { readonly target: unknown }): void => controller.abort((event.target as AbortSignal).reason)
  for (const source of sources) {
    if (source.aborted) controller.abort(source.reason)
    source.addEventListener('abort', onAbort, { once: true })
  }
  return {
    signal: controller.signal,
    release: () => {
      for (const source of sources) source.removeEventListener('abort', onAbort)
    },
  }
}

/** A controller that many wait on at once: Node warns about more than ten by default. */
export function sharedController(): AbortController {
  const controller = new AbortController()
  setMaxListeners(0, controller.signal)
  return controller
}
