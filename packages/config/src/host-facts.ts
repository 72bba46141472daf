/** The real `HostFacts` and file reader, for main files. */
import { readFileSync } from 'node:fs'
import { availableParallelism, homedir, totalmem } from 'node:os'
import type { HostFacts } from './setting.js'

export function systemHostFacts(env: Readonly<Record<string, string | undefined>>): HostFacts {
  const xdg = env['XDG_DATA_HOME']
  return {
    isRoot: process.getuid?.() === 0,
    homeDir: homedir(),
    cpuCount: availableParallelism(),
    totalMemoryBytes: totalmem(),
    xdgDataHome: xdg === undefined || xdg === '' ? undefined : xdg,
  }
}

export function readConfigText(path: string): string {
  return readFileSync(path, 'utf8')
}
