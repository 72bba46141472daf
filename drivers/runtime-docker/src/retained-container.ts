/**
 * A stopped container whose writable layer is kept.
 *
 * The layer is read through the engine, so that it works wherever the engine is: its list of changes, and for each
 * the files as a tar. Whiteouts are written as OCI layers have them.
 *
 * I1. What the platform itself mounts into a sandbox is no part of its layer.
 * I2. Added directories come as a whole; of a changed directory only its own entry comes, its content only as listed.
 */
import path from 'node:path'
import type { Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { FaasError, type RetainedState, type SandboxId } from '@faas-platform/core'
import tar from 'tar-stream'
import { AGENT_DIR } from './container-config.js'
import { inspectContainer } from './engine-calls.js'
import { segment, type EngineClient } from './engine-client.js'
import { EngineError, isEngineStatus, toDriverError } from './engine-error.js'
import { list, number, shape, text } from './engine-shape.js'

const CHANGES_DEADLINE_MS = 120_000
const ARCHIVE_DEADLINE_MS = 60_000
const WHITEOUT = '.wh.'
const OPAQUE = '.wh..wh..opq'

/** As the engine numbers them. */
const KIND = { modified: 0, added: 1, deleted: 2 } as const

interface Change {
  readonly path: string
  readonly kind: number
}

export interface RetainedContainerParts {
  readonly client: EngineClient
  readonly containerId: string
  readonly sandboxId: SandboxId
  readonly sizeBytes: number
  readonly remove: () => Promise<void>
}

export class RetainedContainer implements RetainedState {
  readonly #parts: RetainedContainerParts
  #removing: Promise<void> | undefined

  constructor(parts: RetainedContainerParts) {
    this.#parts = parts
  }

  get sandboxId(): SandboxId {
    return this.#parts.sandboxId
  }

  get sizeBytes(): number {
    return this.#parts.sizeBytes
  }

  async *export(signal: AbortSignal): AsyncIterable<Uint8Array> {
    const pack = tar.pack()
    const writing = this.#write(pack, signal).catch((error: unknown) => {
      pack.destroy(error instanceof Error ? error : new FaasError('sandbox/lost', { message: 'The kept files could not be read.', cause: error }))
    })
    try {
      for await (const chunk of pack) yield chunk as Uint8Array
    } catch (error) {
      throw toDriverError(error, 'sandbox/lost', 'The kept files of the sandbox could not be read.')
    } finally {
      pack.destroy()
      await writing
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#removing ??= this.#parts.remove().catch((error: unknown) => {
      this.#removing = undefined
      throw error
    })
    return this.#removing
  }

  async #write(pack: tar.Pack, signal: AbortSignal): Promise<void> {
    const { volumes, changes } = await this.#changes(signal)
    const deleted = new Set(changes.filter(({ kind }) => kind === KIND.deleted).map((change) => change.path))
    const whole = wholeTrees(changes, deleted)
    for (const change of changes) {
      signal.throwIfAborted()
      if (insideAny(change.path, whole)) continue
      if (change.kind === KIND.deleted) await this.#deleted(pack, change.path, changes, signal)
      else await this.#copy(pack, change.path, { content: whole.has(change.path) }, signal)
    }
    for (const volume of volumes) await this.#copy(pack, volume, { content: true }, signal)
    pack.finalize()
  }

  /** Parents first. Without the platform's own directory, and with declared volumes apart: the engine lists no changes in them. */
  async #changes(signal: AbortSignal): Promise<{ readonly volumes: readonly string[]; readonly changes: readonly Change[] }> {
    const { client, containerId } = this.#parts
    const [answer, inspected] = await Promise.all([
      client.json({ path: `/containers/${segment(containerId)}/changes`, signal, deadlineMs: CHANGES_DEADLINE_MS }),
      inspectContainer(client, containerId),
    ])
    if (answer !== null && !Array.isArray(answer)) throw new EngineError('protocol', 'The engine did not answer with a list of changes.')
    const volumes = list(inspected, 'Mounts')
      .map((mount) => shape(mount, 'Mounts'))
      .filter((mount) => mount['Type'] === 'volume' && mount['RW'] === true)
      .map((mount) => text(mount, 'Destination'))
    const changes = ((answer ?? []) as unknown[])
      .map((entry) => shape(entry, 'change'))
      .map((entry) => ({ path: text(entry, 'Path'), kind: number(entry, 'Kind') }))
      .filter((change) => !within(change.path, AGENT_DIR)) // I1
      .filter((change) => !volumes.includes(change.path))
      .sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
    return { volumes, changes }
  }

  /** Gone, or replaced by something new of the same name: then what was below it must not shine through. */
  async #deleted(pack: tar.Pack, target: string, changes: readonly Change[], signal: AbortSignal): Promise<void> {
    const replaced = changes.some((change) => change.path !== target && change.kind !== KIND.deleted && within(change.path, target))
    if (replaced && (await this.#copy(pack, target, { content: false }, signal))) {
      entry(pack, `${target.slice(1)}/${OPAQUE}`)
      return
    }
    entry(pack, path.posix.join(path.posix.dirname(target), WHITEOUT + path.posix.basename(target)).slice(1))
  }

  /** Copies a path from the container; with `content: false` a directory's own entry only. False when it is not there. */
  async #copy(pack: tar.Pack, target: string, options: { readonly content: boolean }, signal: AbortSignal): Promise<boolean> {
    const { client, containerId } = this.#parts
    const opened = await client
      .stream({ path: `/containers/${segment(containerId)}/archive`, query: { path: target }, signal, deadlineMs: ARCHIVE_DEADLINE_MS })
      .catch((error: unknown) => {
        if (isEngineStatus(error, 404)) return undefined
        throw error
      })
    if (opened === undefined) return false
    const extract = tar.extract()
    opened.on('error', (error) => extract.destroy(error))
    opened.pipe(extract)
    const base = path.posix.dirname(target)
    const place = (name: string): string => path.posix.join(base, name).slice(1).replace(/\/$/, '')
    try {
      for await (const part of extract) {
        signal.throwIfAborted()
        const header: tar.Header = { ...part.header, name: part.header.type === 'directory' ? `${place(part.header.name)}/` : place(part.header.name) }
        if (header.type === 'link') header.linkname = place(part.header.linkname ?? '')
        await forward(pack, header, part)
        if (!options.content && header.type === 'directory') break // I2
      }
    } finally {
      opened.destroy()
    }
    return true
  }
}

async function forward(pack: tar.Pack, header: tar.Header, part: AsyncIterable<unknown>): Promise<void> {
  await pipeline(part, pack.entry(header) as unknown as Writable)
}

function entry(pack: tar.Pack, name: string): void {
  pack.entry({ name, mode: 0o600, mtime: new Date(0) }, '')
}

/** Added paths that come with everything in them: no deletion is listed at or below them. */
function wholeTrees(changes: readonly Change[], deleted: ReadonlySet<string>): ReadonlySet<string> {
  const whole = new Set<string>()
  for (const { path: target, kind } of changes) {
    if (kind !== KIND.added || insideAny(target, whole)) continue
    if (within(AGENT_DIR, target) || [...deleted].some((gone) => within(gone, target))) continue
    whole.add(target)
  }
  return whole
}

function within(target: string, dir: string): boolean {
  return target === dir || target.startsWith(`${dir}/`)
}

/** True for paths strictly below one of the trees. */
function insideAny(target: string, trees: ReadonlySet<string>): boolean {
  for (let at = path.posix.dirname(target); at !== '/' && at !== '.'; at = path.posix.dirname(at)) if (trees.has(at)) return true
  return false
}
