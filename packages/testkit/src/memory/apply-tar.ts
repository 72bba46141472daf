/** Extracts tar entries into a tree; nothing ever lands outside of the target directory. */
import { FaasError } from '@faas-platform/core'
import type { TarEntry } from '../tar.js'
import { ERRNO_NUMBER, GuestError, type FileTree } from './file-tree.js'

/** @throws FaasError `sandbox/path-invalid` for entries that lead out, `sandbox/file-error` for what the tree refuses. */
export function applyTar(tree: FileTree, into: string, entries: readonly TarEntry[], options: { readonly whiteouts: boolean }): void {
  try {
    tree.mkdir(into, '/', { parents: true })
    const base = tree.realpath(into)
    for (const entry of entries) applyEntry(tree, base, entry, options.whiteouts)
  } catch (error) {
    if (!(error instanceof GuestError)) throw error
    throw new FaasError('sandbox/file-error', { message: `The files could not be written: ${error.message}.`, details: { reason: 'file', errno: ERRNO_NUMBER[error.errno], path: error.path }, cause: error })
  }
}

function applyEntry(tree: FileTree, base: string, entry: TarEntry, whiteouts: boolean): void {
  const path = inside(tree, base, entry.path)
  if (path === null) return
  const name = path.slice(path.lastIndexOf('/') + 1)
  if (whiteouts && name.startsWith('.wh.')) {
    const hidden = `${path.slice(0, path.lastIndexOf('/'))}/${name.slice(4)}`
    if (tree.exists(hidden)) tree.remove(hidden, '/', { recursive: true })
    return
  }
  const owner = { uid: entry.uid ?? 0, gid: entry.gid ?? 0 }
  switch (entry.type) {
    case 'dir':
      if (!tree.exists(path)) tree.mkdir(path, '/', { parents: true, mode: entry.mode ?? 0o755, ...owner })
      Object.assign(tree.lookup(path), { mode: entry.mode ?? 0o755, ...owner })
      return
    case 'file': {
      if (isThere(tree, path)) tree.remove(path, '/', { recursive: false })
      const node = tree.open(path, '/', { truncate: true, mode: entry.mode ?? 0o644, ...owner })
      if (node.type === 'file') tree.append(node, entry.data ?? new Uint8Array(0))
      node.mtimeMs = entry.mtimeMs ?? node.mtimeMs
      return
    }
    case 'symlink':
      if (isThere(tree, path)) tree.remove(path, '/', { recursive: false })
      tree.symlink(entry.linkTarget ?? '', path)
      return
    case 'hardlink': {
      const target = inside(tree, base, entry.linkTarget ?? '')
      if (target === null) throw new GuestError('EPERM', entry.path)
      if (isThere(tree, path)) tree.remove(path, '/', { recursive: false })
      tree.link(target, path)
      return
    }
    default:
      throw new FaasError('sandbox/file-error', { message: 'Devices and pipes are not accepted.', details: { reason: 'file', errno: ERRNO_NUMBER.EPERM, path: entry.path } })
  }
}

/** The absolute path of an entry with its directory made; null for the root itself. */
function inside(tree: FileTree, base: string, name: string): string | null {
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (name.startsWith('/') || parts.includes('..')) throw escape(name)
  if (parts.length === 0) return null
  const below = base === '/' ? '' : base
  let real = below
  // Step by step, so that nothing is made behind a link before it is known where the link leads.
  for (const part of parts.slice(0, -1)) {
    const step = `${real}/${part}`
    if (!isThere(tree, step)) tree.mkdir(step, '/')
    real = tree.realpath(step)
    if (real !== below && !real.startsWith(`${below}/`)) throw escape(name)
  }
  return `${real}/${parts.at(-1) ?? ''}`
}

function isThere(tree: FileTree, path: string): boolean {
  try {
    tree.lookup(path, '/', { followLast: false })
    return true
  } catch (error) {
    if (error instanceof GuestError && error.errno === 'ENOENT') return false
    throw error
  }
}

function escape(name: string): FaasError {
  return new FaasError('sandbox/path-invalid', { message: 'An entry of the archive leads out of the target directory.', details: { path: name } })
}
