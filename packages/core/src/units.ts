/** Units and their one place of conversion. Outside names (`memory_mb`, `timeout_secs`) are converted by the adapter that meets them. */

export const KIB = 1024
export const MIB = 1024 * KIB
export const GIB = 1024 * MIB

/** MiB as the wire counts them → bytes. Exact: the product of two safe integers below 2^53. */
export function mibToBytes(mib: number): number {
  return mib * MIB
}

/** Bytes → whole MiB, rounded up, so that a limit never shrinks on its way to a coarser unit. */
export function bytesToMibCeil(bytes: number): number {
  return Math.ceil(bytes / MIB)
}

/** Bytes → whole MiB, rounded to the nearest, for display. */
export function bytesToMibRound(bytes: number): number {
  return Math.round(bytes / MIB)
}

export function secondsToMs(seconds: number): number {
  return Math.round(seconds * 1000)
}

/** `12.3 ms`, `1.20 s`, `3 min 20 s`. */
export function formatMs(ms: number): string {
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(2) : ms.toFixed(1)} ms`
  if (ms < 60_000) return `${(ms / 1000).toFixed(2)} s`
  // Rounded before it is split, so that no minute has sixty seconds.
  const seconds = Math.round(ms / 1000)
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
}

/** `512 B`, `4.0 KiB`, `1.5 GiB`. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'] as const
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit] ?? 'TiB'}`
}
