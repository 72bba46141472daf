/** Ids that are the same in every run. */
import type { Ids } from '@faas-platform/core'

/** UUID-shaped (version 4, variant 1) and counting up from `…0001`. `seed` sets the first group, so two sources never meet. */
export function sequenceIds(seed = 0): Ids {
  let next = 0
  const head = (seed >>> 0).toString(16).padStart(8, '0')
  return { uuid: () => `${head}-0000-4000-8000-${(++next).toString(16).padStart(12, '0')}` }
}
