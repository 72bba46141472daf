/** Grammar of the memory driver's shell: the part of POSIX sh that tests use. */

export type WordPart =
  | { readonly kind: 'text'; readonly text: string; readonly quoted: boolean }
  | { readonly kind: 'var'; readonly name: string; readonly fallback?: Word; readonly quoted: boolean }
  | { readonly kind: 'command'; readonly script: Script; readonly quoted: boolean }
  | { readonly kind: 'arith'; readonly source: Word; readonly quoted: boolean }
export type Word = readonly WordPart[]

export interface Redirect {
  readonly fd: number
  readonly op: '<' | '>' | '>>' | '>&' | '<&'
  readonly target: Word
}

export type Command = { readonly redirects: readonly Redirect[] } & (
  | { readonly kind: 'simple'; readonly assigns: readonly { readonly name: string; readonly value: Word }[]; readonly words: readonly Word[] }
  | { readonly kind: 'subshell' | 'group'; readonly body: Script }
  | { readonly kind: 'if'; readonly branches: readonly { readonly test: Script; readonly body: Script }[]; readonly otherwise: Script | null }
  | { readonly kind: 'loop'; readonly until: boolean; readonly test: Script; readonly body: Script }
  | { readonly kind: 'for'; readonly name: string; readonly words: readonly Word[]; readonly body: Script }
)
export interface Pipeline { readonly negate: boolean; readonly commands: readonly Command[] }
export interface AndOr { readonly first: Pipeline; readonly rest: readonly { readonly op: '&&' | '||'; readonly next: Pipeline }[]; readonly background: boolean }
export type Script = readonly AndOr[]

export class SyntaxFault extends Error {}

const NAME = /[A-Za-z_][A-Za-z0-9_]*/y
const STOPS = new Set(['then', 'else', 'elif', 'fi', 'do', 'done', '}'])

export function parseScript(source: string): Script {
  const parser = new Parser(source)
  const script = parser.list(() => parser.atEnd)
  if (!parser.atEnd) throw new SyntaxFault(`syntax error near ${JSON.stringify(parser.rest(12))}`)
  return script
}

class Parser {
  #at = 0
  constructor(private readonly source: string) {}

  get atEnd(): boolean {
    this.#blank(true)
    return this.#at >= this.source.length
  }

  rest(length: number): string {
    return this.source.slice(this.#at, this.#at + length)
  }

  list(ends: () => boolean): Script {
    const items: AndOr[] = []
    for (;;) {
      this.#blank(true)
      if (ends() || this.source[this.#at] === ')' || STOPS.has(this.#keyword())) return items
      const first = this.#pipeline()
      const rest: { op: '&&' | '||'; next: Pipeline }[] = []
      for (;;) {
        this.#blank(false)
        const op = this.source.slice(this.#at, this.#at + 2)
        if (op !== '&&' && op !== '||') break
        this.#at += 2
        this.#blank(true)
        rest.push({ op, next: this.#pipeline() })
      }
      this.#blank(false)
      const background = this.source[this.#at] === '&'
      if (background || this.source[this.#at] === ';') this.#at++
      items.push({ first, rest, background })
    }
  }

  #pipeline(): Pipeline {
    let negate = false
    if (this.#keyword() === '!') {
      this.#at++
      this.#blank(false)
      negate = true
    }
    const commands = [this.#command()]
    for (;;) {
      this.#blank(false)
      if (this.source[this.#at] !== '|' || this.source[this.#at + 1] === '|') return { negate, commands }
      this.#at++
      this.#blank(true)
      commands.push(this.#command())
    }
  }

  #command(): Command {
    const char = this.source[this.#at]
    if (char === '(') {
      this.#at++
      const body = this.list(() => false)
      this.#expect(')')
      return { kind: 'subshell', body, redirects: this.#redirects() }
    }
    switch (this.#keyword()) {
      case '{': {
        this.#at++
        const body = this.list(() => false)
        this.#take('}')
        return { kind: 'group', body, redirects: this.#redirects() }
      }
      case 'if':
        return this.#if()
      case 'while':
      case 'until': {
        const until = this.#keyword() === 'until'
        this.#at += 5
        const test = this.list(() => false)
        return { kind: 'loop', until, test, body: this.#doGroup(), redirects: this.#redirects() }
      }
      case 'for': {
        this.#at += 3
        this.#blank(false)
        const name = this.#name() ?? this.#fault()
        this.#blank(true)
        const words: Word[] = []
        if (this.#keyword() === 'in') {
          this.#at += 2
          for (this.#blank(false); this.#startsWord(); this.#blank(false)) words.push(this.#word())
        }
        if (this.source[this.#at] === ';') this.#at++
        return { kind: 'for', name, words, body: this.#doGroup(), redirects: this.#redirects() }
      }
      default:
        return this.#simple()
    }
  }

  #if(): Command {
    const branches: { test: Script; body: Script }[] = []
    let otherwise: Script | null = null
    this.#take('if')
    for (;;) {
      const test = this.list(() => false)
      this.#take('then')
      branches.push({ test, body: this.list(() => false) })
      const next = this.#keyword()
      if (next === 'elif') {
        this.#take('elif')
        continue
      }
      if (next === 'else') {
        this.#take('else')
        otherwise = this.list(() => false)
      }
      this.#take('fi')
      return { kind: 'if', branches, otherwise, redirects: this.#redirects() }
    }
  }

  #doGroup(): Script {
    this.#take('do')
    const body = this.list(() => false)
    this.#take('done')
    return body
  }

  #simple(): Command {
    const assigns: { name: string; value: Word }[] = []
    const words: Word[] = []
    const redirects: Redirect[] = []
    for (;;) {
      this.#blank(false)
      const redirect = this.#redirect()
      if (redirect !== null) {
        redirects.push(redirect)
        continue
      }
      if (!this.#startsWord()) break
      const start = this.#at
      const name = words.length === 0 ? this.#name() : undefined
      if (name !== undefined && this.source[this.#at] === '=') {
        this.#at++
        assigns.push({ name, value: this.#startsWord() ? this.#word() : [] })
        continue
      }
      this.#at = start
      words.push(this.#word())
    }
    if (words.length + assigns.length + redirects.length === 0) this.#fault()
    return { kind: 'simple', assigns, words, redirects }
  }

  #redirects(): Redirect[] {
    const found: Redirect[] = []
    for (;;) {
      this.#blank(false)
      const redirect = this.#redirect()
      if (redirect === null) return found
      found.push(redirect)
    }
  }

  #redirect(): Redirect | null {
    const match = /(\d?)(>>|>&|<&|>|<)/y
    match.lastIndex = this.#at
    const found = match.exec(this.source)
    if (found === null) return null
    this.#at += found[0].length
    const op = found[2] as Redirect['op']
    this.#blank(false)
    return { fd: found[1] === '' ? (op.startsWith('<') ? 0 : 1) : Number(found[1]), op, target: this.#word() }
  }

  #startsWord(): boolean {
    const char = this.source[this.#at]
    return char !== undefined && !' \t\n;&|()<>'.includes(char)
  }

  #word(): Word {
    const parts: WordPart[] = []
    let plain = ''
    const flush = (): void => {
      if (plain !== '') parts.push({ kind: 'text', text: plain, quoted: false })
      plain = ''
    }
    if (!this.#startsWord()) this.#fault()
    while (this.#startsWord()) {
      const char = this.source[this.#at] ?? ''
      if (char === "'") {
        const end = this.source.indexOf("'", this.#at + 1)
        if (end < 0) this.#fault('unterminated quoted string')
        flush()
        parts.push({ kind: 'text', text: this.source.slice(this.#at + 1, end), quoted: true })
        this.#at = end + 1
      } else if (char === '"') {
        flush()
        this.#doubleQuoted(parts)
      } else if (char === '\\') {
        flush()
        parts.push({ kind: 'text', text: this.source[this.#at + 1] ?? '', quoted: true })
        this.#at += 2
      } else if (char === '$') {
        const part = this.#dollar(false)
        if (part === null) plain += '$'
        else {
          flush()
          parts.push(part)
        }
      } else {
        plain += char
        this.#at++
      }
    }
    flush()
    return parts
  }

  #doubleQuoted(parts: WordPart[]): void {
    let plain = ''
    this.#at++
    for (;;) {
      const char = this.source[this.#at]
      if (char === undefined) this.#fault('unterminated quoted string')
      if (char === '"') break
      if (char === '\\' && '$`"\\\n'.includes(this.source[this.#at + 1] ?? '')) {
        plain += this.source[this.#at + 1] ?? ''
        this.#at += 2
      } else if (char === '$') {
        const part = this.#dollar(true)
        if (part === null) plain += '$'
        else {
          parts.push({ kind: 'text', text: plain, quoted: true }, part)
          plain = ''
        }
      } else {
        plain += char
        this.#at++
      }
    }
    this.#at++
    parts.push({ kind: 'text', text: plain, quoted: true })
  }

  #dollar(quoted: boolean): WordPart | null {
    this.#at++
    if (this.source.startsWith('((', this.#at)) {
      const end = this.source.indexOf('))', this.#at)
      if (end < 0) this.#fault('missing ))')
      const inner = this.source.slice(this.#at + 2, end)
      this.#at = end + 2
      return { kind: 'arith', source: innerWord(inner), quoted }
    }
    if (this.source[this.#at] === '(') {
      this.#at++
      const script = this.list(() => false)
      this.#expect(')')
      return { kind: 'command', script, quoted }
    }
    if (this.source[this.#at] === '{') {
      this.#at++
      const name = this.#name() ?? this.#special() ?? this.#fault()
      let fallback: Word | undefined
      if (this.source.startsWith(':-', this.#at)) {
        const end = this.source.indexOf('}', this.#at)
        fallback = innerWord(this.source.slice(this.#at + 2, end))
        this.#at = end
      }
      this.#expect('}')
      return { kind: 'var', name, quoted, ...(fallback === undefined ? {} : { fallback }) }
    }
    const name = this.#name() ?? this.#special()
    return name === undefined ? null : { kind: 'var', name, quoted }
  }

  #special(): string | undefined {
    const char = this.source[this.#at] ?? ''
    if (!/[?$!#@*0-9]/.test(char)) return undefined
    this.#at++
    return char
  }

  #name(): string | undefined {
    NAME.lastIndex = this.#at
    const found = NAME.exec(this.source)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }

  #keyword(): string {
    const match = /[^\s;&|()<>'"$\\]+/y
    match.lastIndex = this.#at
    return match.exec(this.source)?.[0] ?? ''
  }

  #take(keyword: string): void {
    this.#blank(true)
    if (this.#keyword() !== keyword) this.#fault()
    this.#at += keyword.length
  }

  #expect(char: string): void {
    this.#blank(true)
    if (this.source[this.#at] !== char) this.#fault()
    this.#at++
  }

  #blank(newlines: boolean): void {
    for (;;) {
      const char = this.source[this.#at]
      if (char === ' ' || char === '\t' || (newlines && (char === '\n' || (char === ';' && this.#at === 0)))) this.#at++
      else if (char === '\\' && this.source[this.#at + 1] === '\n') this.#at += 2
      else if (char === '#' && /[\s;]|^$/.test(this.source[this.#at - 1] ?? '')) {
        const end = this.source.indexOf('\n', this.#at)
        this.#at = end < 0 ? this.source.length : end
      } else if (!newlines && char === '\n') return
      else return
    }
  }

  #fault(message = `syntax error near ${JSON.stringify(this.rest(12))}`): never {
    throw new SyntaxFault(message)
  }
}

/** Text inside `$(( ))` or after `:-`, where only `$` is special. */
function innerWord(inner: string): Word {
  const script = parseScript(`x "${inner.replace(/"/g, '')}"`)
  const command = script[0]?.first.commands[0]
  return command?.kind === 'simple' ? (command.words[1] ?? []) : []
}
