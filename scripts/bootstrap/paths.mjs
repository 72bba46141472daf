/**
 * Where the bootstrap keeps what it fetches. Nothing outside these folders is
 * written: the host's package database and /usr stay as they are.
 */
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const REPO_ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..')

/** Root of everything fetched or built; `FAAS_TOOLS_DIR` moves it. */
export const TOOLS_DIR = resolve(process.env.FAAS_TOOLS_DIR || join(REPO_ROOT, '.tools'))

export const BIN_DIR = join(TOOLS_DIR, 'bin')
export const IMAGES_DIR = join(TOOLS_DIR, 'images')
export const TOOLS_MANIFEST = join(TOOLS_DIR, 'tools.json')

/** The bootstrap's own tools first, then the host's; sbin is missing from many users' PATH. */
export function pathWithTools(hostPath = process.env.PATH ?? '') {
  return [BIN_DIR, hostPath, '/usr/local/sbin', '/usr/sbin', '/sbin'].filter(Boolean).join(':')
}
