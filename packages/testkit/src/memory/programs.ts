/** The programs of the in-memory sandbox, by name: what a busybox image offers, as far as tests use it. */
import { createHash } from 'node:crypto'
import { concatBytes, text, utf8 } from '../bytes.js'
import { GuestError, type TreeNode } from './file-tree.js'
import type { OpenFile } from './io.js'
import type { Proc, Program } from './kernel.js'
import { codeOf, openFile, shellProgram, type Resolve } from './shell/run.js'

const say = (proc: Proc, line: string): Promise<void> => proc.write(1, utf8(line))

/** Reports a failed call as the program's own message and gives exit code 1. */
async function attempt(proc: Proc, body: () => Promise<number | undefined>): Promise<number> {
  try {
    return (await body()) ?? 0
  } catch (error) {
    if (!(error instanceof GuestError)) throw error
    await proc.write(2, utf8(`${proc.argv[0] ?? ''}: ${error.path === undefined ? '' : `${error.path}: `}${error.message}\n`))
    return 1
  }
}

/** Copies `source` to stdout, at most `bytesMax`. */
async function pump(proc: Proc, source: OpenFile, bytesMax = Number.POSITIVE_INFINITY): Promise<void> {
  let left = bytesMax
  while (left > 0) {
    const chunk = await proc.block(source.read())
    if (chunk === null) return
    const part = chunk.length > left ? chunk.subarray(0, left) : chunk
    source.unread(chunk.subarray(part.length))
    left -= part.length
    await proc.write(1, part)
    await proc.tick()
  }
}

async function slurp(proc: Proc, names: readonly string[]): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for (const source of sources(proc, names)) for (let chunk = await proc.block(source.read()); chunk !== null; chunk = await proc.block(source.read())) parts.push(chunk)
  return concatBytes(parts)
}

function* sources(proc: Proc, names: readonly string[]): Generator<OpenFile> {
  const input = proc.fds.get(0)
  for (const name of names.length === 0 ? ['-'] : names) {
    if (name !== '-') yield openFile(proc, name, '<')
    else if (input !== undefined) yield input
  }
}

function options(argv: readonly string[]): { flags: string; rest: string[] } {
  let at = 1
  let flags = ''
  for (; at < argv.length && /^-./.test(argv[at] ?? ''); at++) {
    if (argv[at] === '--') {
      at++
      break
    }
    flags += (argv[at] ?? '').slice(1)
  }
  return { flags, rest: argv.slice(at) }
}

/** `64`, `64k`, `64M` → bytes. */
export function sizeOf(source: string): number {
  const match = /^(\d+)([kKmMgG]?)$/.exec(source)
  const scale: Readonly<Record<string, number>> = { '': 1, k: 1024, m: 1024 ** 2, g: 1024 ** 3 }
  return match === null ? Number.NaN : Number(match[1]) * (scale[(match[2] ?? '').toLowerCase()] ?? 1)
}

function printf(format: string, args: readonly string[]): string {
  const escapes: Readonly<Record<string, string>> = { n: '\n', t: '\t', r: '\r', '\\': '\\', a: '\x07', b: '\b' }
  let next = 0
  const once = (): string =>
    format.replace(/\\([0-7]{1,3}|x[0-9a-fA-F]{1,2}|.)|%(0?\d*)([sdxc%])/g, (_, escape: string | undefined, width: string, kind: string) => {
      if (escape !== undefined) {
        if (/^[0-7]/.test(escape)) return String.fromCharCode(Number.parseInt(escape, 8) & 255)
        if (/^x/.test(escape)) return String.fromCharCode(Number.parseInt(escape.slice(1), 16))
        return escapes[escape] ?? `\\${escape}`
      }
      if (kind === '%') return '%'
      const arg = args[next++] ?? ''
      const shown = kind === 'd' ? String(Number(arg || '0')) : kind === 'x' ? Number(arg || '0').toString(16) : kind === 'c' ? arg.slice(0, 1) : Buffer.from(arg).toString('latin1')
      return shown.padStart(Number(width || '0'), width.startsWith('0') ? '0' : ' ')
    })
  let out = once()
  while (next > 0 && next < args.length) out += once()
  return out
}

function condition(proc: Proc, args: readonly string[]): boolean {
  const { tree } = proc.kernel
  if (args[0] === '!') return !condition(proc, args.slice(1))
  const [a = '', op = '', b = ''] = args
  if (args.length === 3) {
    switch (op) {
      case '=':
      case '==': return a === b
      case '!=': return a !== b
      case '-eq': return Number(a) === Number(b)
      case '-ne': return Number(a) !== Number(b)
      case '-lt': return Number(a) < Number(b)
      case '-le': return Number(a) <= Number(b)
      case '-gt': return Number(a) > Number(b)
      case '-ge': return Number(a) >= Number(b)
      default: throw new GuestError('EINVAL', op)
    }
  }
  if (args.length <= 1) return a !== ''
  const node = (followLast = true): TreeNode | null => (tree.exists(op, proc.cwd) || !followLast ? safeLookup(proc, op, followLast) : null)
  switch (a) {
    case '-n': return op !== ''
    case '-z': return op === ''
    case '-t': return proc.fds.get(Number(op))?.ops.terminal !== undefined
    case '-e':
    case '-r':
    case '-w': return node() !== null
    case '-x': return ((node()?.mode ?? 0) & 0o111) !== 0
    case '-f': return node()?.type === 'file'
    case '-d': return node()?.type === 'dir'
    case '-L':
    case '-h': return node(false)?.type === 'symlink'
    case '-c': return node()?.type === 'device'
    case '-s': {
      const found = node()
      return found?.type === 'file' && found.size > 0
    }
    default: throw new GuestError('EINVAL', a)
  }
}

function safeLookup(proc: Proc, path: string, followLast: boolean): TreeNode | null {
  try {
    return proc.kernel.tree.lookup(path, proc.cwd, { followLast })
  } catch (error) {
    if (error instanceof GuestError) return null
    throw error
  }
}

const test: Program = (proc) => attempt(proc, () => Promise.resolve(condition(proc, proc.argv.slice(1, proc.argv[0] === '[' ? -1 : undefined)) ? 0 : 1))

function users(proc: Proc, file: string): Map<string, string[]> {
  if (!proc.kernel.tree.exists(file)) return new Map()
  return new Map(text(proc.kernel.tree.readFile(file)).split('\n').filter((line) => line !== '').map((line) => [line.split(':')[0] ?? '', line.split(':')]))
}

const nameOf = (proc: Proc, file: string, id: number): string | undefined => [...users(proc, file)].find(([, row]) => Number(row[2]) === id)?.[0]

export function builtinPrograms(resolve: Resolve): Record<string, Program> {
  const programs: Record<string, Program> = {
    true: () => Promise.resolve(0),
    false: () => Promise.resolve(1),
    test,
    '[': test,
    echo: async (proc) => {
      const bare = proc.argv[1] === '-n'
      await say(proc, proc.argv.slice(bare ? 2 : 1).join(' ') + (bare ? '' : '\n'))
      return 0
    },
    printf: async (proc) => {
      await proc.write(1, Uint8Array.from(Buffer.from(printf(Buffer.from(proc.argv[1] ?? '').toString('latin1'), proc.argv.slice(2)), 'latin1')))
      return 0
    },
    cat: (proc) =>
      attempt(proc, async () => {
        for (const source of sources(proc, options(proc.argv).rest)) await pump(proc, source)
        return 0
      }),
    head: (proc) =>
      attempt(proc, async () => {
        const [, kind, amount, ...names] = proc.argv
        if (kind === '-c') for (const source of sources(proc, names)) await pump(proc, source, sizeOf(amount ?? ''))
        else {
          const lines = kind === '-n' ? Number(amount) : 10
          const rest = kind === '-n' ? names : proc.argv.slice(1)
          let seen = 0
          for (const source of sources(proc, rest)) {
            while (seen < lines) {
              const chunk = await proc.block(source.read())
              if (chunk === null) break
              let end = 0
              while (seen < lines && end < chunk.length) if (chunk[end++] === 10) seen++
              await proc.write(1, chunk.subarray(0, end))
            }
          }
        }
        return 0
      }),
    wc: (proc) =>
      attempt(proc, async () => {
        const { flags, rest } = options(proc.argv)
        let bytes = 0
        let lines = 0
        for (const source of sources(proc, rest)) {
          for (let chunk = await proc.block(source.read()); chunk !== null; chunk = await proc.block(source.read())) {
            bytes += chunk.length
            if (flags.includes('l')) for (const byte of chunk) if (byte === 10) lines++
            await proc.tick()
          }
        }
        await say(proc, `${flags.includes('l') ? lines : bytes}${rest[0] === undefined ? '' : ` ${rest[0]}`}\n`)
        return 0
      }),
    yes: async (proc) => {
      const line = utf8(`${proc.argv[1] ?? 'y'}\n`.repeat(512))
      for (;;) {
        await proc.write(1, line)
        await proc.tick()
      }
    },
    seq: async (proc) => {
      const [first, last] = proc.argv.length > 2 ? [Number(proc.argv[1]), Number(proc.argv[2])] : [1, Number(proc.argv[1])]
      for (let i = first; i <= last; i++) {
        await say(proc, `${i}\n`)
        await proc.tick()
      }
      return 0
    },
    sleep: async (proc) => {
      await proc.sleep(Number(proc.argv[1]) * 1000)
      return 0
    },
    env: async (proc) => {
      let at = 1
      if (proc.argv[at] === '-i') {
        proc.env.clear()
        at++
      }
      for (; /^[^=]+=/.test(proc.argv[at] ?? ''); at++) {
        const pair = proc.argv[at] ?? ''
        proc.env.set(pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1))
      }
      if (at < proc.argv.length) return become(proc, proc.argv.slice(at), resolve)
      for (const [name, value] of proc.env) await say(proc, `${name}=${value}\n`)
      return 0
    },
    pwd: (proc) =>
      attempt(proc, async () => {
        if (!proc.kernel.tree.exists(proc.cwd)) throw new GuestError('ENOENT', 'getcwd')
        await say(proc, `${proc.cwd}\n`)
        return 0
      }),
    id: async (proc) => {
      const { uid, gid } = proc.user
      const flags = options(proc.argv).flags
      const user = nameOf(proc, '/etc/passwd', uid)
      const group = nameOf(proc, '/etc/group', gid)
      if (flags.includes('n')) await say(proc, `${(flags.includes('u') ? user : group) ?? (flags.includes('u') ? uid : gid)}\n`)
      else if (flags.includes('u')) await say(proc, `${uid}\n`)
      else if (flags.includes('g')) await say(proc, `${gid}\n`)
      else await say(proc, `uid=${uid}${user === undefined ? '' : `(${user})`} gid=${gid}${group === undefined ? '' : `(${group})`}\n`)
      return 0
    },
    whoami: async (proc) => {
      await say(proc, `${nameOf(proc, '/etc/passwd', proc.user.uid) ?? proc.user.uid}\n`)
      return 0
    },
    hostname: async (proc) => {
      await say(proc, `${proc.kernel.hostname}\n`)
      return 0
    },
    tty: async (proc) => {
      const isTty = proc.fds.get(0)?.ops.terminal !== undefined
      await say(proc, isTty ? '/dev/pts/0\n' : 'not a tty\n')
      return isTty ? 0 : 1
    },
    stty: async (proc) => {
      const terminal = proc.fds.get(0)?.ops.terminal
      if (terminal === undefined || proc.argv[1] !== 'size') return 1
      await say(proc, `${terminal.rows} ${terminal.cols}\n`)
      return 0
    },
    ls: (proc) =>
      attempt(proc, async () => {
        const { flags, rest } = options(proc.argv)
        const node = proc.kernel.tree.lookup(rest[0] ?? '.', proc.cwd)
        const names = node.type === 'dir' ? [...node.children.keys()].sort() : [rest[0] ?? '']
        for (const name of names) if (!name.startsWith('.') || /[aA]/.test(flags)) await say(proc, `${name}\n`)
        return 0
      }),
    find: (proc) =>
      attempt(proc, async () => {
        const only = proc.argv[2] === '-type' ? proc.argv[3] : undefined
        const walk = async (path: string, node: TreeNode): Promise<void> => {
          const kind = node.type === 'dir' ? 'd' : node.type === 'symlink' ? 'l' : 'f'
          if (only === undefined || only === kind) await say(proc, `${path}\n`)
          if (node.type === 'dir') for (const [name, child] of node.children) await walk(`${path}/${name}`, child)
        }
        await walk(proc.argv[1] ?? '.', proc.kernel.tree.lookup(proc.argv[1] ?? '.', proc.cwd))
        return 0
      }),
    mkdir: (proc) =>
      attempt(proc, async () => {
        const { flags, rest } = options(proc.argv)
        for (const path of rest) proc.kernel.tree.mkdir(path, proc.cwd, { parents: flags.includes('p'), ...proc.user })
        await proc.tick()
        return 0
      }),
    rmdir: (proc) =>
      attempt(proc, async () => {
        for (const path of options(proc.argv).rest) proc.kernel.tree.remove(path, proc.cwd)
        await proc.tick()
        return 0
      }),
    rm: (proc) =>
      attempt(proc, async () => {
        const { flags, rest } = options(proc.argv)
        for (const path of rest) {
          if (flags.includes('f') && safeLookup(proc, path, false) === null) continue
          proc.kernel.tree.remove(path, proc.cwd, { recursive: /[rR]/.test(flags) })
        }
        await proc.tick()
        return 0
      }),
    mv: (proc) =>
      attempt(proc, async () => {
        const [from = '', to = ''] = options(proc.argv).rest
        const node = proc.kernel.tree.lookup(from, proc.cwd, { followLast: false })
        proc.kernel.tree.place(to, proc.cwd, node)
        proc.kernel.tree.remove(from, proc.cwd, { recursive: true })
        await proc.tick()
        return 0
      }),
    ln: (proc) =>
      attempt(proc, async () => {
        const { flags, rest } = options(proc.argv)
        const [target = '', path = ''] = rest
        if (flags.includes('s')) proc.kernel.tree.symlink(target, path, proc.cwd)
        else proc.kernel.tree.link(target, path, proc.cwd)
        await proc.tick()
        return 0
      }),
    readlink: (proc) =>
      attempt(proc, async () => {
        const node = proc.kernel.tree.lookup(options(proc.argv).rest[0] ?? '', proc.cwd, { followLast: false })
        if (node.type !== 'symlink') return 1
        await say(proc, `${node.target}\n`)
        return 0
      }),
    touch: (proc) =>
      attempt(proc, async () => {
        for (const path of options(proc.argv).rest) proc.kernel.tree.open(path, proc.cwd, { truncate: false, ...proc.user })
        await proc.tick()
        return 0
      }),
    chmod: (proc) =>
      attempt(proc, async () => {
        const [mode = '', ...paths] = proc.argv.slice(1)
        for (const path of paths) {
          const node = proc.kernel.tree.lookup(path, proc.cwd)
          node.mode = mode === '+x' ? node.mode | 0o111 : Number.parseInt(mode, 8)
          proc.kernel.tree.changed(node)
        }
        await proc.tick()
        return 0
      }),
    stat: (proc) =>
      attempt(proc, async () => {
        const node = proc.kernel.tree.lookup(proc.argv[3] ?? '', proc.cwd, { followLast: false })
        const fields: Readonly<Record<string, string>> = { a: node.mode.toString(8), u: String(node.uid), g: String(node.gid), s: String(node.type === 'file' ? node.size : 0), F: node.type }
        await say(proc, `${(proc.argv[2] ?? '').replace(/%([augsF])/g, (_, key: string) => fields[key] ?? '')}\n`)
        return 0
      }),
    sha256sum: (proc) =>
      attempt(proc, async () => {
        const names = proc.argv.slice(1)
        await say(proc, `${createHash('sha256').update(await slurp(proc, names)).digest('hex')}  ${names[0] ?? '-'}\n`)
        return 0
      }),
    dd: (proc) =>
      attempt(proc, async () => {
        const args = new Map(proc.argv.slice(1).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]))
        const source = args.has('if') ? openFile(proc, args.get('if') ?? '', '<') : proc.fds.get(0)
        if (args.has('of')) proc.setFd(1, openFile(proc, args.get('of') ?? '', '>'))
        if (source !== undefined) await pump(proc, source, args.has('count') ? sizeOf(args.get('bs') ?? '512') * Number(args.get('count')) : undefined)
        return 0
      }),
    setsid: async (proc) => {
      const target = resolve(proc, proc.argv[1] ?? '')
      if (typeof target !== 'function') return 127
      const fds = new Map([...proc.fds].map(([fd, file]) => [fd, file.dup()]))
      const child = proc.kernel.spawn({ argv: proc.argv.slice(1), program: target, env: proc.env, cwd: proc.cwd, user: proc.user, fds, parent: proc, newGroup: true, ignored: proc.ignored })
      return codeOf(await proc.block(child.exit))
    },
    nohup: (proc) => {
      proc.ignored.add('SIGHUP')
      return become(proc, proc.argv.slice(1), resolve)
    },
    /** Touches the given MiB, then waits: what a memory test uses in place of a real program. */
    memhog: async (proc) => {
      for (let left = Number(proc.argv[1]); left > 0; left--) {
        proc.touchMemory(1024 * 1024)
        await proc.tick()
      }
      await say(proc, 'touched\n')
      return 0
    },
  }
  const sh = shellProgram(resolve)
  return { ...programs, sh, ash: sh }
}

/** Runs another program as this process. */
function become(proc: Proc, argv: readonly string[], resolve: Resolve): Promise<number> {
  const program = resolve(proc, argv[0] ?? '')
  if (typeof program !== 'function') return Promise.resolve(program === 'denied' ? 126 : 127)
  proc.argv = argv
  return program(proc)
}
