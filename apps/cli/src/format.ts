/** Durations and ages for people. */
const UNITS = [['d', 86_400_000], ['h', 3_600_000], ['m', 60_000]] as const

/** `850ms`, `1.2s`, `42s`, `3m`, `5h`, `2d` */
export function shortDuration(ms: number): string {
  for (const [unit, size] of UNITS) if (ms >= size) return `${Math.floor(ms / size)}${unit}`
  if (ms < 1000) return `${Math.max(0, Math.round(ms))}ms`
  return ms < 10_000 ? `${(ms / 1000).toFixed(1)}s` : `${Math.floor(ms / 1000)}s`
}

export function age(since: string | null, nowMs: number): string {
  return since === null ? '-' : shortDuration(nowMs - Date.parse(since))
}

/** An argv as one could type it. */
export function commandLine(argv: readonly string[]): string {
  return argv.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ').replaceAll('\n', '\\n')
}
