/** What processes of the memory driver read from and write to: reference-counted open files, bounded pipes, a terminal. */
import { utf8 } from '../bytes.js'
import { GuestError } from './file-tree.js'

const PIPE_BYTES_MAX = 64 * 1024

export interface FileOps {
  /** Null at the end. */
  read?(): Promise<Uint8Array | null>
  write?(bytes: Uint8Array): Promise<void>
  close?(): void
  readonly terminal?: Terminal
}

/** Raised in a writer whose reader is gone; ends it as SIGPIPE does. */
export class BrokenPipe extends Error {}

/** One open file description, shared by everyone who inherited it. */
export class OpenFile {
  #refs = 1
  /** What a partial reader put back. */
  #unread: Uint8Array[] = []

  constructor(readonly ops: FileOps) {}

  dup(): OpenFile {
    this.#refs++
    return this
  }

  close(): void {
    if (--this.#refs === 0) this.ops.close?.()
  }

  async read(): Promise<Uint8Array | null> {
    const put = this.#unread.pop()
    if (put !== undefined) return put
    if (this.ops.read === undefined) throw new GuestError('EINVAL')
    return this.ops.read()
  }

  unread(bytes: Uint8Array): void {
    if (bytes.length > 0) this.#unread.push(bytes)
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.ops.write === undefined) throw new GuestError('EINVAL')
    if (bytes.length > 0) await this.ops.write(bytes)
  }
}

export class BytePipe {
  #chunks: Uint8Array[] = []
  #bytes = 0
  #writersOpen = true
  #readersOpen = true
  #wake: (() => void)[] = []

  readonly reader = new OpenFile({
    read: () => this.#read(),
    close: () => {
      this.#readersOpen = false
      this.#signal()
    },
  })
  readonly writer = new OpenFile({
    write: (bytes) => this.#write(bytes),
    close: () => {
      this.#writersOpen = false
      this.#signal()
    },
  })

  async #read(): Promise<Uint8Array | null> {
    for (;;) {
      const chunk = this.#chunks.shift()
      if (chunk !== undefined) {
        this.#bytes -= chunk.length
        this.#signal()
        return chunk
      }
      if (!this.#writersOpen) return null
      await this.#changed()
    }
  }

  async #write(bytes: Uint8Array): Promise<void> {
    while (this.#readersOpen && this.#bytes > 0 && this.#bytes + bytes.length > PIPE_BYTES_MAX) await this.#changed()
    if (!this.#readersOpen) throw new BrokenPipe()
    this.#chunks.push(bytes.slice())
    this.#bytes += bytes.length
    this.#signal()
  }

  #changed(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve))
  }

  #signal(): void {
    const woken = this.#wake
    this.#wake = []
    for (const wake of woken) wake()
  }
}

export const nullFile = (): OpenFile => new OpenFile({ read: () => Promise.resolve(null), write: () => Promise.resolve() })

/** A line discipline with echo, canonical lines, `\n` → `\r\n`, ctrl-C and ctrl-D. */
export class Terminal {
  readonly #input = new BytePipe()
  #line: number[] = []
  onInterrupt: () => void = () => undefined

  constructor(public cols: number, public rows: number, private readonly output: (bytes: Uint8Array) => Promise<void>) {}

  /** The end that a guest's fds 0, 1 and 2 are. */
  open(): OpenFile {
    return new OpenFile({ read: () => this.#input.reader.read(), write: (bytes) => this.output(crlf(bytes)), terminal: this })
  }

  /** What is typed. */
  async type(bytes: Uint8Array): Promise<void> {
    for (const byte of bytes) {
      if (byte === 3) {
        this.#line = []
        await this.output(utf8('^C\r\n'))
        this.onInterrupt()
      } else if (byte === 4) {
        if (this.#line.length === 0) this.hangUp()
        else await this.#deliver()
      } else {
        const char = byte === 13 ? 10 : byte
        await this.output(crlf(Uint8Array.of(char)))
        this.#line.push(char)
        if (char === 10) await this.#deliver()
      }
    }
  }

  hangUp(): void {
    this.#input.writer.close()
  }

  async #deliver(): Promise<void> {
    const line = Uint8Array.from(this.#line)
    this.#line = []
    await this.#input.writer.write(line)
  }
}

function crlf(bytes: Uint8Array): Uint8Array {
  if (!bytes.includes(10)) return bytes
  const out: number[] = []
  for (const byte of bytes) {
    if (byte === 10) out.push(13)
    out.push(byte)
  }
  return Uint8Array.from(out)
}
