import { describe, expect, it } from 'vitest'
import { text, utf8 } from '../bytes.js'
import { FileTree, GuestError } from './file-tree.js'

function treeWith(files: Record<string, string>): FileTree {
  const tree = new FileTree(() => 0)
  for (const [path, content] of Object.entries(files)) {
    tree.mkdir(path.slice(0, path.lastIndexOf('/')) || '/', '/', { parents: true })
    const node = tree.open(path, '/', { truncate: true })
    if (node.type === 'file') tree.append(node, utf8(content))
  }
  return tree
}

describe('the in-memory file tree', () => {
  it('.. of the root is the root, links are followed, loops are refused', () => {
    const tree = treeWith({ '/etc/name': 'x' })
    tree.symlink('../../../etc', '/up')
    expect(text(tree.readFile('/../../up/name'))).toBe('x')
    tree.symlink('b', '/a')
    tree.symlink('a', '/b')
    expect(() => tree.lookup('/a')).toThrowError(expect.objectContaining({ errno: 'ELOOP' }) as Error)
  })

  it('a fork shares nothing that can change, and hard links stay links', () => {
    const base = treeWith({ '/a': 'one' })
    base.link('/a', '/b')
    const fork = base.fork(() => 0)
    const node = fork.open('/a', '/', { truncate: false })
    if (node.type === 'file') fork.append(node, utf8(' two'))
    expect([text(fork.readFile('/b')), text(base.readFile('/a'))]).toEqual(['one two', 'one'])
  })

  it('the changes of a fork are what an overlay would hold', () => {
    const fork = treeWith({ '/etc/keep': '1', '/etc/gone': '2', '/etc/changed': '3' }).fork(() => 0)
    fork.remove('/etc/gone')
    const node = fork.open('/etc/changed', '/', { truncate: true })
    if (node.type === 'file') fork.append(node, utf8('4'))
    fork.mkdir('/new', '/')
    expect([...fork.changes()].map(({ path, type }) => `${type} ${path}`).sort()).toEqual(['dir new', 'file etc/.wh.gone', 'file etc/changed'])
  })

  it('the quota counts what was added and is given back by removal and truncation', () => {
    const fork = treeWith({ '/base': 'xxxx' }).fork(() => 0)
    fork.quotaBytes = 10
    const write = (path: string, size: number): void => {
      const node = fork.open(path, '/', { truncate: true })
      if (node.type === 'file') fork.append(node, new Uint8Array(size))
    }
    write('/a', 8)
    expect(() => write('/b', 3)).toThrowError(GuestError)
    fork.link('/a', '/c')
    fork.remove('/a')
    expect(fork.addedBytes).toBe(8)
    fork.remove('/c')
    expect(fork.addedBytes).toBe(0)
    write('/b', 10)
    write('/b', 10)
    expect(fork.addedBytes).toBe(10)
  })
})
