/**
 * The numbered log of one execution: in memory while it is small, in a file of the log store when it grows.
 *
 * I1. Entries are numbered from 0 without gaps.
 * I2. Memory holds at most `memoryBytesMax` plus what waits for the disk; a writer that is too far ahead waits.
 * I3. A reader pulls at its own pace and never makes the log hold more.
 */
import type { EventOutline, ExecutionId, ExecutionState, LogEntry, LogReader, LogStore, LogWriter } from '@faas-platform/core'

const MEMORY_ENTRIES_MAX = 1024
/** A writer waits while more than this waits for the disk. */
const PENDING_BYTES_MAX = 1024 * 1024

type NewEntry = { readonly type: 'stdout' | 'stderr'; readonly bytes: Uint8Array } | { readonly type: 'state'; readonly state: ExecutionState }

export class ExecutionLog {
  /** What is not on disk: everything, or the entries on their way there. */
  #memory: LogEntry[] = []
  #memoryBytes = 0
  #nextSeq = 0
  #writer: LogWriter | null = null
  #writing: Promise<void> | null = null
  #failure: unknown = null
  #closed = false
  #wakers: (() => void)[] = []

  constructor(private readonly id: ExecutionId, private readonly store: LogStore, private readonly memoryBytesMax: number) {}

  get length(): number {
    return this.#nextSeq
  }

  get onDisk(): boolean {
    return this.#writer !== null
  }

  /** Appends; a returned promise asks the caller to wait for it before the next call. Rejects when the disk fails. */
  append(entry: NewEntry, atMs: number): Promise<void> | undefined {
    if (this.#closed) return undefined // A state after the end of the log, when work is handed back.
    const seq = this.#nextSeq++ // I1
    this.#memory.push({ ...entry, seq, atMs })
    if ('bytes' in entry) this.#memoryBytes += entry.bytes.length
    this.#wake()
    const spill = this.onDisk || this.#memoryBytes > this.memoryBytesMax || this.#memory.length > MEMORY_ENTRIES_MAX
    if (!spill) return undefined
    if (this.#writing === null) {
      this.#writing = this.#spill()
      this.#writing.catch(() => undefined) // Kept in `#failure`: the next append and `close` report it.
    }
    if (this.#failure !== null) return Promise.reject(this.#failure as Error)
    return this.#memoryBytes > PENDING_BYTES_MAX + this.memoryBytesMax ? this.#writing : undefined // I2
  }

  /** No more entries. With `keepOnDisk` the log becomes a file even when it is small. */
  async close(options: { readonly keepOnDisk: boolean }): Promise<void> {
    if (this.#failure !== null) {
      this.#closed = true
      this.#wake()
      await this.#writer?.close()
      throw this.#failure
    }
    if (options.keepOnDisk || this.onDisk) await (this.#writing ?? this.#spill())
    // Entries that came while the last write ran.
    if (this.onDisk && this.#memory.length > 0) await this.#spill()
    this.#closed = true
    await this.#writer?.close()
    this.#wake()
  }

  /** The order of arrival, when the log never left memory. */
  outline(): EventOutline | null {
    if (this.onDisk) return null
    return this.#memory.map((entry) => entry.type === 'state' ? [entry.state, 0, entry.atMs] : [entry.type, entry.bytes.length, entry.atMs])
  }

  /** From `fromSeq` to the end of the log, waiting for what is still to come. */
  async *read(fromSeq: number, signal: AbortSignal): AsyncGenerator<LogEntry> {
    let next = fromSeq
    let reader: LogReader | null = null
    try {
      for (;;) {
        signal.throwIfAborted()
        const firstInMemory = this.#memory[0]?.seq ?? this.#nextSeq
        if (next >= firstInMemory) {
          for (const entry of this.#memory.slice(next - firstInMemory)) {
            next = entry.seq + 1
            yield entry
          }
          if (next < this.#nextSeq) continue
          if (this.#closed) return
          await this.#nextChange(signal)
          continue
        }
        reader ??= await this.store.open(this.id, next)
        const entries = reader === null ? [] : await reader.read()
        if (entries.length === 0 && next < (this.#memory[0]?.seq ?? this.#nextSeq)) return // The file was pruned under us.
        for (const entry of entries) {
          if (entry.seq < next) continue
          next = entry.seq + 1
          yield entry
        }
      }
    } finally {
      await reader?.close()
    }
  }

  async #spill(): Promise<void> {
    try {
      this.#writer ??= await this.store.create(this.id)
      while (this.#memory.length > 0) {
        const batch = this.#memory.slice()
        const bytes = this.#memoryBytes
        await this.#writer.append(batch)
        this.#memory = this.#memory.slice(batch.length)
        this.#memoryBytes -= bytes
      }
    } catch (error) {
      this.#failure = error
      throw error
    } finally {
      this.#writing = null
    }
  }

  #wake(): void {
    if (this.#wakers.length === 0) return
    for (const wake of this.#wakers.splice(0)) wake()
  }

  async #nextChange(signal: AbortSignal): Promise<void> {
    let wake: () => void = () => undefined
    await new Promise<void>((resolve) => {
      wake = resolve
      this.#wakers.push(wake)
      signal.addEventListener('abort', wake, { once: true })
    })
    signal.removeEventListener('abort', wake)
  }
}
