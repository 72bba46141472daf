/** What the tests of this package share. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { silentLog } from '@faas-platform/core'
import { HostKit } from './hostkit.js'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
export const hostkitPath = join(ROOT, 'agent/target/release/faas-hostkit')
export const toolsDir = join(ROOT, '.tools/bin')

export function newHostKit(lockPath?: string): HostKit {
  return new HostKit({ path: hostkitPath, log: silentLog, ...(lockPath === undefined ? {} : { lockPath }) })
}

export function scratchDir(): { readonly path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), 'faas-host-test-'))
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) }
}
