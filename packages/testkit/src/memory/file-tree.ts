/**
 * A POSIX-like file tree in memory, with the bookkeeping an overlay would do: what was added, changed and deleted.
 *
 * I1. Nothing outside the tree is reachable: `..` of the root is the root, absolute links start at the root.
 * I2. Bytes of files never exceed `quotaBytes` plus what the base tree had.
 */
import type { TarEntry } from '../tar.js'

export type Errno =
  | 'ENOENT' | 'EEXIST' | 'ENOTDIR' | 'EISDIR' | 'ENOSPC' | 'ELOOP' | 'EACCES' | 'EINVAL' | 'ENOTEMPTY' | 'EPERM' | 'E2BIG' | 'EAGAIN' | 'ESRCH'

export const ERRNO_TEXT: Readonly<Record<Errno, string>> = {
  ENOENT: 'No such file or directory', EEXIST: 'File exists', ENOTDIR: 'Not a directory', EISDIR: 'Is a directory',
  ENOSPC: 'No space left on device', ELOOP: 'Too many levels of symbolic links', EACCES: 'Permission denied',
  EINVAL: 'Invalid argument', ENOTEMPTY: 'Directory not empty', EPERM: 'Operation not permitted',
  E2BIG: 'Argument list too long', EAGAIN: 'Resource temporarily unavailable', ESRCH: 'No such process',
}

/** Numbers as Linux has them on x86-64 and arm64. */
export const ERRNO_NUMBER: Readonly<Record<Errno, number>> = {
  EPERM: 1, ENOENT: 2, ESRCH: 3, E2BIG: 7, EAGAIN: 11, EACCES: 13, EEXIST: 17, ENOTDIR: 20, EISDIR: 21, EINVAL: 22, ENOSPC: 28, ENOTEMPTY: 39, ELOOP: 40,
}

/** What a guest program sees of a failed call; never leaves the memory driver as it is. */
export class GuestError extends Error {
  constructor(readonly errno: Errno, readonly path?: string) {
    super(ERRNO_TEXT[errno])
    this.name = 'GuestError'
  }
}

interface Common {
  mode: number
  uid: number
  gid: number
  mtimeMs: number
  /** The node of the base tree this one is an unchanged copy of. */
  origin: TreeNode | null
}
export interface FileNode extends Common { type: 'file'; data: Uint8Array; size: number; /** Bytes counted against the quota. */ ownBytes: number }
export interface DirNode extends Common { type: 'dir'; children: Map<string, TreeNode> }
export interface LinkNode extends Common { type: 'symlink'; target: string }
export interface DeviceNode extends Common { type: 'device'; device: 'null' | 'zero' | 'full' | 'tty' }
export type TreeNode = FileNode | DirNode | LinkNode | DeviceNode

const LINKS_MAX = 40

export class FileTree {
  root: DirNode
  #base: DirNode | null = null
  #added = 0
  /** Bytes that may be added. */
  quotaBytes = Number.POSITIVE_INFINITY

  constructor(private readonly nowMs: () => number, root?: DirNode) {
    this.root = root ?? dir(0o755, nowMs())
  }

  /** A tree that starts equal to this one and shares nothing that can change. */
  fork(nowMs: () => number): FileTree {
    const copies = new Map<TreeNode, TreeNode>()
    const copy = (node: TreeNode): TreeNode => {
      const known = copies.get(node)
      if (known !== undefined) return known
      const made: TreeNode =
        node.type === 'dir' ? { ...node, origin: node, children: new Map() }
        : node.type === 'file' ? { ...node, origin: node, data: node.data.slice(0, node.size), ownBytes: 0 }
        : { ...node, origin: node }
      copies.set(node, made)
      if (made.type === 'dir' && node.type === 'dir') for (const [name, child] of node.children) made.children.set(name, copy(child))
      return made
    }
    const made = copy(this.root)
    const fork = new FileTree(nowMs, made.type === 'dir' ? made : undefined)
    fork.#base = this.root
    return fork
  }

  get addedBytes(): number {
    return this.#added
  }

  lookup(path: string, cwd = '/', options: { readonly followLast?: boolean } = {}): TreeNode {
    return this.#walk(path, cwd, options.followLast ?? true).node ?? fail('ENOENT', path)
  }

  exists(path: string, cwd = '/'): boolean {
    return this.#walkOrNull(path, cwd) !== null
  }

  /** The path with every link and `..` resolved. */
  realpath(path: string, cwd = '/'): string {
    const found = this.#walk(path, cwd, true)
    if (found.node === undefined) throw new GuestError('ENOENT', path)
    return `/${found.names.join('/')}`
  }

  /** True while `node` still hangs in the tree under `path`. */
  holds(path: string, node: TreeNode): boolean {
    return this.#walkOrNull(path, '/') === node
  }

  readFile(path: string, cwd = '/'): Uint8Array {
    const node = this.lookup(path, cwd)
    if (node.type === 'dir') throw new GuestError('EISDIR', path)
    if (node.type !== 'file') throw new GuestError('EINVAL', path)
    return node.data.subarray(0, node.size)
  }

  /** Opens for writing, making the file when it is not there. */
  open(path: string, cwd: string, options: { readonly truncate: boolean; readonly mode?: number; readonly uid?: number; readonly gid?: number }): FileNode | DeviceNode {
    const found = this.#walk(path, cwd, true)
    let node = found.node
    if (node === undefined) {
      node = { type: 'file', mode: options.mode ?? 0o644, uid: options.uid ?? 0, gid: options.gid ?? 0, mtimeMs: this.nowMs(), origin: null, data: new Uint8Array(0), size: 0, ownBytes: 0 }
      this.#attach(found.parent, found.name, node)
    }
    if (node.type === 'dir') throw new GuestError('EISDIR', path)
    if (node.type === 'symlink') throw new GuestError('ELOOP', path)
    if (node.type === 'file' && options.truncate) this.truncate(node)
    return node
  }

  append(node: FileNode, bytes: Uint8Array): void {
    if (this.#added + bytes.length > this.quotaBytes) throw new GuestError('ENOSPC') // I2
    if (node.size + bytes.length > node.data.length) {
      const grown = new Uint8Array(Math.max(node.size + bytes.length, node.data.length * 2, 256))
      grown.set(node.data.subarray(0, node.size))
      node.data = grown
    }
    node.data.set(bytes, node.size)
    node.size += bytes.length
    node.ownBytes += bytes.length
    this.#added += bytes.length
    this.#touch(node)
  }

  truncate(node: FileNode): void {
    this.#added -= node.ownBytes
    node.ownBytes = 0
    node.data = new Uint8Array(0)
    node.size = 0
    this.#touch(node)
  }

  mkdir(path: string, cwd: string, options: { readonly parents?: boolean; readonly mode?: number; readonly uid?: number; readonly gid?: number } = {}): void {
    if (options.parents === true) {
      const names = absolute(path, cwd).split('/').filter((name) => name !== '')
      for (let depth = 1; depth <= names.length; depth++) {
        const part = `/${names.slice(0, depth).join('/')}`
        if (!this.exists(part)) this.mkdir(part, '/', { ...options, parents: false })
      }
      if (this.lookup(path, cwd).type !== 'dir') throw new GuestError('EEXIST', path)
      return
    }
    const found = this.#walk(path, cwd, false)
    if (found.node !== undefined) throw new GuestError('EEXIST', path)
    this.#attach(found.parent, found.name, { ...dir(options.mode ?? 0o755, this.nowMs()), uid: options.uid ?? 0, gid: options.gid ?? 0 })
  }

  symlink(target: string, path: string, cwd = '/'): void {
    const found = this.#walk(path, cwd, false)
    if (found.node !== undefined) throw new GuestError('EEXIST', path)
    this.#attach(found.parent, found.name, { type: 'symlink', target, mode: 0o777, uid: 0, gid: 0, mtimeMs: this.nowMs(), origin: null })
  }

  link(existing: string, path: string, cwd = '/'): void {
    const node = this.lookup(existing, cwd, { followLast: false })
    if (node.type === 'dir') throw new GuestError('EPERM', existing)
    const found = this.#walk(path, cwd, false)
    if (found.node !== undefined) throw new GuestError('EEXIST', path)
    this.#attach(found.parent, found.name, node)
  }

  /** Puts a node at `path`, replacing a non-directory there. */
  place(path: string, cwd: string, node: TreeNode): void {
    const found = this.#walk(path, cwd, false)
    if (found.node?.type === 'dir') throw new GuestError('EISDIR', path)
    this.#attach(found.parent, found.name, node)
  }

  remove(path: string, cwd = '/', options: { readonly recursive?: boolean } = {}): void {
    const found = this.#walk(path, cwd, false)
    if (found.node === undefined) throw new GuestError('ENOENT', path)
    if (found.node === this.root) throw new GuestError('EPERM', path)
    if (found.node.type === 'dir' && found.node.children.size > 0 && options.recursive !== true) throw new GuestError('ENOTEMPTY', path)
    found.parent.children.delete(found.name)
    this.#touch(found.parent)
    this.#release(found.node)
  }

  changed(node: TreeNode): void {
    this.#touch(node)
  }

  /** Everything below `path` (itself included) as tar entries named from `name`. */
  *entries(node: TreeNode, name: string, seen = new Map<TreeNode, string>()): Generator<TarEntry> {
    const first = seen.get(node)
    if (first !== undefined) {
      yield { path: name, type: 'hardlink', linkTarget: first }
      return
    }
    if (node.type !== 'dir') seen.set(node, name)
    const common = { path: name, mode: node.mode, uid: node.uid, gid: node.gid, mtimeMs: node.mtimeMs }
    if (node.type === 'file') yield { ...common, type: 'file', data: node.data.slice(0, node.size) }
    else if (node.type === 'symlink') yield { ...common, type: 'symlink', linkTarget: node.target }
    else if (node.type === 'dir') {
      yield { ...common, type: 'dir' }
      for (const [child, below] of node.children) yield* this.entries(below, name === '' ? child : `${name}/${child}`, seen)
    }
  }

  /** What an overlay's upper directory would hold, as OCI layer entries. */
  *changes(): Generator<TarEntry> {
    if (this.#base !== null) yield* this.#changesOf(this.root, this.#base, '', new Map())
  }

  *#changesOf(now: DirNode, before: DirNode, prefix: string, seen: Map<TreeNode, string>): Generator<TarEntry> {
    for (const name of before.children.keys()) {
      if (!now.children.has(name)) yield { path: `${prefix}.wh.${name}`, type: 'file', mode: 0, data: new Uint8Array(0) }
    }
    for (const [name, node] of now.children) {
      const old = before.children.get(name)
      const path = `${prefix}${name}`
      if (node.origin === null || node.origin !== old) {
        if (node.type === 'dir' && old?.type === 'dir' && node.origin === null) {
          yield { path, type: 'dir', mode: node.mode, uid: node.uid, gid: node.gid, mtimeMs: node.mtimeMs }
          yield* this.#changesOf(node, old, `${path}/`, seen)
        } else yield* this.entries(node, path, seen)
      } else if (node.type === 'dir' && old.type === 'dir') yield* this.#changesOf(node, old, `${path}/`, seen)
    }
  }

  #attach(parent: DirNode, name: string, node: TreeNode): void {
    if (name === '') throw new GuestError('EEXIST')
    const old = parent.children.get(name)
    parent.children.set(name, node)
    if (old !== undefined && old !== node) this.#release(old)
    parent.mtimeMs = this.nowMs()
  }

  #release(node: TreeNode): void {
    if (node.type === 'dir') for (const child of node.children.values()) this.#release(child)
    else if (node.type === 'file' && node.ownBytes > 0 && !this.#reachable(node)) {
      this.#added -= node.ownBytes
      node.ownBytes = 0
    }
  }

  #reachable(wanted: TreeNode, below: TreeNode = this.root): boolean {
    if (below === wanted) return true
    return below.type === 'dir' && [...below.children.values()].some((child) => this.#reachable(wanted, child))
  }

  #touch(node: TreeNode): void {
    node.mtimeMs = this.nowMs()
    // A directory keeps its origin: its own changes show as its children's.
    if (node.type !== 'dir') node.origin = null
  }

  #walkOrNull(path: string, cwd: string): TreeNode | null {
    try {
      return this.#walk(path, cwd, true).node ?? null
    } catch (error) {
      if (error instanceof GuestError) return null
      throw error
    }
  }

  #walk(path: string, cwd: string, followLast: boolean, links = 0): { node: TreeNode | undefined; parent: DirNode; name: string; names: string[] } {
    if (path === '') throw new GuestError('ENOENT', path)
    const todo = absolute(path, cwd).split('/').filter((name) => name !== '' && name !== '.')
    const trail: { node: DirNode; name: string }[] = []
    let here: DirNode = this.root
    for (let i = 0; i < todo.length; i++) {
      const name = todo[i] ?? ''
      if (name === '..') {
        trail.pop()
        here = trail.at(-1)?.node ?? this.root // I1
        continue
      }
      const last = i === todo.length - 1
      const node = here.children.get(name)
      const names = [...trail.map((step) => step.name), name]
      if (node === undefined) {
        if (last) return { node: undefined, parent: here, name, names }
        throw new GuestError('ENOENT', path)
      }
      if (node.type === 'symlink' && (!last || followLast)) {
        if (links >= LINKS_MAX) throw new GuestError('ELOOP', path)
        const rest = todo.slice(i + 1).join('/')
        return this.#walk(rest === '' ? node.target : `${node.target}/${rest}`, `/${trail.map((step) => step.name).join('/')}`, followLast, links + 1)
      }
      if (last) return { node, parent: here, name, names }
      if (node.type !== 'dir') throw new GuestError('ENOTDIR', path)
      trail.push({ node, name })
      here = node
    }
    return { node: here, parent: trail.at(-2)?.node ?? this.root, name: trail.at(-1)?.name ?? '', names: trail.map((step) => step.name) }
  }
}

export function dir(mode: number, mtimeMs: number): DirNode {
  return { type: 'dir', mode, uid: 0, gid: 0, mtimeMs, origin: null, children: new Map() }
}

export function absolute(path: string, cwd: string): string {
  return path.startsWith('/') ? path : `${cwd}/${path}`
}

function fail(errno: Errno, path: string): never {
  throw new GuestError(errno, path)
}
