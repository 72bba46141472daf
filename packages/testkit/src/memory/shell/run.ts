/** Runs a parsed script as a process of the in-memory kernel. */
import { concatBytes, text, utf8 } from '../../bytes.js'
import { ERRNO_TEXT, GuestError } from '../file-tree.js'
import { BytePipe, nullFile, OpenFile } from '../io.js'
import { SIGNALS, type ExitStatus, type Proc, type Program } from '../kernel.js'
import { arithmetic } from './arithmetic.js'
import { parseScript, SyntaxFault, type AndOr, type Command, type Pipeline, type Redirect, type Script, type Word } from './parse.js'

/** Ends the loop, function or shell it is thrown in. */
class Exit extends Error {
  constructor(readonly code: number) {
    super()
  }
}
class LoopControl extends Error {
  constructor(readonly kind: 'break' | 'continue') {
    super()
  }
}

/** Finds the program a name stands for; `undefined` when there is none. */
export type Resolve = (proc: Proc, name: string) => Program | 'denied' | undefined

interface Shell {
  readonly proc: Proc
  readonly resolve: Resolve
  readonly args: readonly string[]
  /** `$$`: stays the same in subshells. */
  readonly shellPid: number
  lastCode: number
  lastBackground: number
  readonly children: Map<number, Proc>
}

/** `sh -c SCRIPT [name [args…]]`, or a script on stdin. */
export function shellProgram(resolve: Resolve): Program {
  return async (proc) => {
    const argv = [...proc.argv.slice(1)]
    let stopOnError = false
    while (argv[0] === '-e' || argv[0] === '-ec') {
      stopOnError = true
      if (argv[0] === '-ec') argv[0] = '-c'
      else argv.shift()
    }
    const source = argv[0] === '-c' ? (argv[1] ?? '') : argv.length > 0 ? text(proc.kernel.tree.readFile(argv[0] ?? '', proc.cwd)) : await readAll(proc)
    const args = argv[0] === '-c' ? argv.slice(2) : argv
    const shell: Shell = { proc, resolve, args: args.length === 0 ? ['sh'] : args, shellPid: proc.pid, lastCode: 0, lastBackground: 0, children: new Map() }
    return runShell(shell, () => parseScript(source), stopOnError)
  }
}

async function runShell(shell: Shell, script: () => Script, stopOnError = false): Promise<number> {
  try {
    await runScript(shell, script(), stopOnError)
    return shell.lastCode
  } catch (error) {
    if (error instanceof Exit) return error.code
    if (error instanceof LoopControl) return 0
    if (error instanceof SyntaxFault || error instanceof GuestError) {
      await shell.proc.write(2, utf8(`sh: ${error instanceof GuestError && error.errno === 'EAGAIN' ? `can't fork: ${error.message}` : error.message}\n`))
      return 2
    }
    throw error
  }
}

async function runScript(shell: Shell, script: Script, stopOnError = false): Promise<void> {
  for (const item of script) {
    if (item.background) {
      const child = spawnShell(shell, [{ ...item, background: false }], new Map([[0, nullFile()]]))
      shell.children.set(child.pid, child)
      shell.lastBackground = child.pid
      shell.lastCode = 0
    } else await runAndOr(shell, item)
    await shell.proc.tick()
    await runTraps(shell)
    if (stopOnError && shell.lastCode !== 0) throw new Exit(shell.lastCode)
  }
}

async function runTraps(shell: Shell): Promise<void> {
  for (let trap = shell.proc.pendingTraps.shift(); trap !== undefined; trap = shell.proc.pendingTraps.shift()) {
    const before = shell.lastCode
    await runScript(shell, parseScript(trap))
    shell.lastCode = before
  }
}

async function runAndOr(shell: Shell, item: AndOr): Promise<void> {
  await runPipeline(shell, item.first)
  for (const { op, next } of item.rest) if ((op === '&&') === (shell.lastCode === 0)) await runPipeline(shell, next)
}

async function runPipeline(shell: Shell, pipeline: Pipeline): Promise<void> {
  const [only] = pipeline.commands
  if (pipeline.commands.length === 1 && only !== undefined) shell.lastCode = await runCommand(shell, only)
  else {
    const members: Proc[] = []
    let input: OpenFile | undefined
    for (const [index, command] of pipeline.commands.entries()) {
      const pipe = index < pipeline.commands.length - 1 ? new BytePipe() : undefined
      const fds = new Map<number, OpenFile>()
      if (input !== undefined) fds.set(0, input)
      if (pipe !== undefined) fds.set(1, pipe.writer)
      members.push(spawnShell(shell, [{ first: { negate: false, commands: [command] }, rest: [], background: false }], fds))
      input = pipe?.reader
    }
    let last: ExitStatus = { code: 0, signal: null }
    for (const member of members) last = await shell.proc.block(member.exit)
    shell.lastCode = codeOf(last)
  }
  if (pipeline.negate) shell.lastCode = shell.lastCode === 0 ? 1 : 0
}

function spawnShell(shell: Shell, script: Script, fds: ReadonlyMap<number, OpenFile>): Proc {
  const { proc } = shell
  const own = new Map<number, OpenFile>(fds)
  for (const [fd, file] of proc.fds) if (!own.has(fd)) own.set(fd, file.dup())
  const program: Program = (child) => runShell({ ...shell, proc: child, children: new Map() }, () => script)
  return proc.kernel.spawn({ argv: proc.argv, program, env: proc.env, cwd: proc.cwd, user: proc.user, fds: own, parent: proc, ignored: proc.ignored })
}

async function runCommand(shell: Shell, command: Command): Promise<number> {
  switch (command.kind) {
    case 'simple':
      return runSimple(shell, command.assigns, command.words, command.redirects)
    case 'subshell': {
      const child = spawnShell(shell, [{ first: { negate: false, commands: [{ ...command, kind: 'group' }] }, rest: [], background: false }], new Map())
      return codeOf(await shell.proc.block(child.exit))
    }
    default:
      return redirected(shell, command.redirects, () => runCompound(shell, command))
  }
}

async function runCompound(shell: Shell, command: Exclude<Command, { kind: 'simple' | 'subshell' }> | Command): Promise<number> {
  switch (command.kind) {
    case 'group':
      await runScript(shell, command.body)
      return shell.lastCode
    case 'if':
      for (const branch of command.branches) {
        await runScript(shell, branch.test)
        if (shell.lastCode === 0) {
          await runScript(shell, branch.body)
          return shell.lastCode
        }
      }
      shell.lastCode = 0
      if (command.otherwise !== null) await runScript(shell, command.otherwise)
      return shell.lastCode
    case 'loop': {
      let code = 0
      for (;;) {
        await runScript(shell, command.test)
        if ((shell.lastCode === 0) === command.until) return code
        if (!(await runBody(shell, command.body))) return 0
        code = shell.lastCode
      }
    }
    case 'for':
      for (const value of (await Promise.all(command.words.map((word) => expand(shell, word)))).flat()) {
        shell.proc.env.set(command.name, value)
        if (!(await runBody(shell, command.body))) break
      }
      return shell.lastCode
    default:
      return 0
  }
}

/** False after `break`. */
async function runBody(shell: Shell, body: Script): Promise<boolean> {
  try {
    await runScript(shell, body)
    return true
  } catch (error) {
    if (error instanceof LoopControl) return error.kind === 'continue'
    throw error
  }
}

async function runSimple(shell: Shell, assigns: readonly { name: string; value: Word }[], words: readonly Word[], redirects: readonly Redirect[]): Promise<number> {
  const { proc } = shell
  const argv: string[] = []
  for (const word of words) argv.push(...(await expand(shell, word)))
  const values: [string, string][] = []
  for (const { name, value } of assigns) values.push([name, (await expandOne(shell, value))])
  const [name] = argv
  if (name === undefined) {
    shell.lastCode = 0
    for (const [key, value] of values) proc.env.set(key, value)
    return redirected(shell, redirects, () => Promise.resolve(shell.lastCode))
  }
  const builtin = BUILTINS[name]
  if (builtin !== undefined) {
    for (const [key, value] of values) proc.env.set(key, value)
    if (name === 'exec' && argv.length === 1) return applyRedirects(shell, redirects)
    return redirected(shell, redirects, () => builtin(shell, argv))
  }
  return redirected(shell, redirects, async () => {
    const child = await spawnExternal(shell, argv, new Map([...proc.env, ...values]))
    return typeof child === 'number' ? child : codeOf(await proc.block(child.exit))
  })
}

async function spawnExternal(shell: Shell, argv: readonly string[], env: ReadonlyMap<string, string>): Promise<Proc | number> {
  const { proc } = shell
  const program = shell.resolve(proc, argv[0] ?? '')
  if (program === undefined || program === 'denied') {
    await proc.write(2, utf8(`sh: ${argv[0] ?? ''}: ${program === 'denied' ? 'Permission denied' : 'not found'}\n`))
    return program === 'denied' ? 126 : 127
  }
  const fds = new Map([...proc.fds].map(([fd, file]) => [fd, file.dup()]))
  return proc.kernel.spawn({ argv, program, env, cwd: proc.cwd, user: proc.user, fds, parent: proc, ignored: proc.ignored })
}

type Builtin = (shell: Shell, argv: readonly string[]) => Promise<number>

const BUILTINS: Readonly<Record<string, Builtin>> = {
  ':': () => Promise.resolve(0),
  exit: (shell, argv) => Promise.reject(new Exit(argv[1] === undefined ? shell.lastCode : Number(argv[1]) & 255)),
  break: () => Promise.reject(new LoopControl('break')),
  continue: () => Promise.reject(new LoopControl('continue')),
  cd: async ({ proc }, argv) => {
    const path = argv[1] ?? proc.env.get('HOME') ?? '/'
    if (!proc.kernel.tree.exists(path, proc.cwd) || proc.kernel.tree.lookup(path, proc.cwd).type !== 'dir') {
      await proc.write(2, utf8(`sh: cd: can't cd to ${path}: ${ERRNO_TEXT.ENOENT}\n`))
      return 2
    }
    proc.cwd = proc.kernel.tree.realpath(path, proc.cwd)
    return 0
  },
  export: ({ proc }, argv) => {
    for (const pair of argv.slice(1)) {
      const equals = pair.indexOf('=')
      if (equals > 0) proc.env.set(pair.slice(0, equals), pair.slice(equals + 1))
    }
    return Promise.resolve(0)
  },
  unset: ({ proc }, argv) => {
    for (const name of argv.slice(1)) proc.env.delete(name)
    return Promise.resolve(0)
  },
  umask: () => Promise.resolve(0),
  set: () => Promise.resolve(0),
  exec: async (shell, argv) => {
    const child = await spawnExternal(shell, argv.slice(1), shell.proc.env)
    throw new Exit(typeof child === 'number' ? child : codeOf(await shell.proc.block(child.exit)))
  },
  eval: async (shell, argv) => {
    await runScript(shell, parseScript(argv.slice(1).join(' ')))
    return shell.lastCode
  },
  read: async (shell, argv) => {
    const line = await readLine(shell.proc)
    shell.proc.env.set(argv.filter((arg) => arg !== '-r')[1] ?? 'REPLY', line.text)
    return line.whole ? 0 : 1
  },
  trap: ({ proc }, argv) => {
    for (const name of argv.slice(2)) {
      const signal = name.startsWith('SIG') ? name : `SIG${name}`
      proc.ignored.delete(signal)
      proc.handlers.delete(signal)
      if (argv[1] === '') proc.ignored.add(signal)
      else if (argv[1] !== '-' && argv[1] !== undefined) proc.handlers.set(signal, argv[1])
    }
    return Promise.resolve(0)
  },
  wait: async (shell, argv) => {
    const wanted = argv.length > 1 ? argv.slice(1).map(Number) : [...shell.children.keys()]
    let code = 0
    for (const pid of wanted) {
      const child = shell.children.get(pid)
      code = child === undefined ? 127 : codeOf(await shell.proc.block(child.exit))
      shell.children.delete(pid)
    }
    return argv.length > 1 ? code : 0
  },
  kill: async ({ proc }, argv) => {
    let signal = 'SIGTERM'
    let code = 0
    for (const arg of argv.slice(1)) {
      if (/^-[A-Z0-9]+$/.test(arg) && !/^-\d\d/.test(arg)) {
        const wanted = arg.slice(1)
        signal = Object.entries(SIGNALS).find(([name, number]) => wanted === name || wanted === name.slice(3) || wanted === String(number))?.[0] ?? (wanted === '0' ? '0' : 'SIGTERM')
        continue
      }
      const pid = Number(arg)
      const there = signal === '0' ? proc.kernel.procs.has(pid) : proc.kernel.kill(pid, signal)
      if (!there) {
        await proc.write(2, utf8(`sh: can't kill pid ${arg}: ${ERRNO_TEXT.ESRCH}\n`))
        code = 1
      }
    }
    await proc.tick()
    return code
  },
}

async function redirected(shell: Shell, redirects: readonly Redirect[], body: () => Promise<number>): Promise<number> {
  if (redirects.length === 0) return body()
  const { proc } = shell
  const saved = new Map([...proc.fds].map(([fd, file]) => [fd, file.dup()]))
  try {
    const failed = await applyRedirects(shell, redirects)
    return failed !== 0 ? failed : await body()
  } finally {
    if (proc.status === undefined) {
      for (const fd of [...proc.fds.keys()]) if (!saved.has(fd)) {
        proc.fds.get(fd)?.close()
        proc.fds.delete(fd)
      }
      for (const [fd, file] of saved) proc.setFd(fd, file)
    } else for (const file of saved.values()) file.close()
  }
}

async function applyRedirects(shell: Shell, redirects: readonly Redirect[]): Promise<number> {
  const { proc } = shell
  for (const redirect of redirects) {
    const target = await expandOne(shell, redirect.target)
    try {
      if (redirect.op === '>&' || redirect.op === '<&') {
        if (target === '-') {
          proc.fds.get(redirect.fd)?.close()
          proc.fds.delete(redirect.fd)
        } else {
          const file = proc.fds.get(Number(target))
          if (file === undefined) throw new GuestError('EINVAL', target)
          proc.setFd(redirect.fd, file.dup())
        }
      } else proc.setFd(redirect.fd, openFile(proc, target, redirect.op))
    } catch (error) {
      if (!(error instanceof GuestError)) throw error
      const verb = redirect.op === '<' ? 'open' : 'create'
      await proc.write(2, utf8(`sh: can't ${verb} ${target}: ${error.errno === 'ENOENT' && verb === 'create' ? 'nonexistent directory' : error.message}\n`))
      return 1
    }
  }
  return 0
}

/** Opens a path of the sandbox for a program. */
export function openFile(proc: Proc, path: string, op: '<' | '>' | '>>'): OpenFile {
  const { tree } = proc.kernel
  const opened = op === '<' ? tree.lookup(path, proc.cwd) : tree.open(path, proc.cwd, { truncate: op === '>', uid: proc.user.uid, gid: proc.user.gid })
  if (opened.type === 'device') return deviceFile(opened.device)
  if (op === '<') {
    if (opened.type === 'dir') throw new GuestError('EISDIR', path)
    let rest: Uint8Array | null = tree.readFile(path, proc.cwd)
    return new OpenFile({
      read: () => {
        const now = rest !== null && rest.length > 0 ? rest : null
        rest = null
        return Promise.resolve(now)
      },
    })
  }
  if (opened.type !== 'file') throw new GuestError('EINVAL', path)
  return new OpenFile({
    write: async (bytes) => {
      tree.append(opened, bytes)
      await Promise.resolve()
    },
  })
}

const ZEROES = new Uint8Array(64 * 1024)

function deviceFile(device: 'null' | 'zero' | 'full' | 'tty'): OpenFile {
  if (device === 'zero') return new OpenFile({ read: () => Promise.resolve(ZEROES), write: () => Promise.resolve() })
  if (device === 'full') return new OpenFile({ read: () => Promise.resolve(ZEROES), write: () => Promise.reject(new GuestError('ENOSPC')) })
  return nullFile()
}

async function expandOne(shell: Shell, word: Word): Promise<string> {
  return (await fields(shell, word, false))[0] ?? ''
}

function expand(shell: Shell, word: Word): Promise<string[]> {
  return fields(shell, word, true)
}

async function fields(shell: Shell, word: Word, split: boolean): Promise<string[]> {
  const out: string[] = []
  let current: string | undefined
  for (const part of word) {
    if (part.kind === 'text') {
      current = (current ?? '') + part.text
      continue
    }
    if (part.kind === 'var' && part.name === '@' && part.quoted) {
      const [first, ...rest] = shell.args.slice(1)
      if (first === undefined) continue
      current = (current ?? '') + first
      for (const arg of rest) {
        out.push(current)
        current = arg
      }
      continue
    }
    const value = await valueOf(shell, part)
    if (part.quoted || !split) {
      current = (current ?? '') + value
      continue
    }
    const pieces = value.split(/[ \t\n]+/)
    for (const [index, piece] of pieces.entries()) {
      if (index > 0 && current !== undefined) {
        out.push(current)
        current = undefined
      }
      if (piece !== '') current = (current ?? '') + piece
    }
  }
  if (current !== undefined) out.push(current)
  return out
}

async function valueOf(shell: Shell, part: Exclude<Word[number], { kind: 'text' }>): Promise<string> {
  if (part.kind === 'arith') return String(arithmetic(await expandOne(shell, part.source), shell.proc.env))
  if (part.kind === 'command') return commandOutput(shell, part.script)
  const special: Readonly<Record<string, string>> = { '?': String(shell.lastCode), $: String(shell.shellPid), '!': String(shell.lastBackground), '#': String(shell.args.length - 1), '@': shell.args.slice(1).join(' '), '*': shell.args.slice(1).join(' ') }
  const value = special[part.name] ?? (/^\d$/.test(part.name) ? shell.args[Number(part.name)] : shell.proc.env.get(part.name)) ?? ''
  return value === '' && part.fallback !== undefined ? expandOne(shell, part.fallback) : value
}

async function commandOutput(shell: Shell, script: Script): Promise<string> {
  const pipe = new BytePipe()
  const child = spawnShell(shell, script, new Map([[1, pipe.writer]]))
  const parts: Uint8Array[] = []
  for (let chunk = await shell.proc.block(pipe.reader.read()); chunk !== null; chunk = await shell.proc.block(pipe.reader.read())) {
    parts.push(chunk)
    shell.proc.touchMemory(chunk.length)
  }
  shell.lastCode = codeOf(await shell.proc.block(child.exit))
  return text(concatBytes(parts)).replace(/\n+$/, '')
}

async function readAll(proc: Proc): Promise<string> {
  const parts: Uint8Array[] = []
  for (let chunk = await proc.read(0); chunk !== null; chunk = await proc.read(0)) parts.push(chunk)
  return text(concatBytes(parts))
}

async function readLine(proc: Proc): Promise<{ text: string; whole: boolean }> {
  const parts: Uint8Array[] = []
  for (let chunk = await proc.read(0); chunk !== null; chunk = await proc.read(0)) {
    const end = chunk.indexOf(10)
    if (end < 0) {
      parts.push(chunk)
      continue
    }
    parts.push(chunk.subarray(0, end))
    proc.fds.get(0)?.unread(chunk.subarray(end + 1))
    return { text: text(concatBytes(parts)), whole: true }
  }
  return { text: text(concatBytes(parts)), whole: false }
}

export function codeOf(status: ExitStatus): number {
  return status.code ?? 128 + (SIGNALS[status.signal ?? ''] ?? 0)
}
