/**
 * Client of the resident `faas-hostkit` helper: forking, mounting and waiting without blocking the event loop.
 *
 * I1. When the helper dies, every pending call fails with a `HostKitError`, and a new one is started: at once, or
 *     with the next call when it did not live long.
 * I2. What a helper starts is in its own cgroup until a runtime moves it, so that nothing it started is lost sight of
 *     when it is killed. It is entered once: moving a process costs the kernel milliseconds.
 * I3. What a helper holds (namespaces by descriptor) dies with it; `generation` tells holders that it did.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { Socket } from 'node:net'
import { join } from 'node:path'
import type { LogSink } from '@faas-platform/core'
import { encodeRequest, HostKitReader, type HostKitMessage, type Step, type StepResult } from './hostkit-wire.js'

export class HostKitError extends Error {
  constructor(
    message: string,
    /** The operation that failed; null when the helper itself is gone. */
    readonly op: string | null,
    readonly errno: number,
    /** Place of the failed step in its request. */
    readonly step: number,
  ) {
    super(message)
    this.name = 'HostKitError'
  }
}

export interface ProcessExit {
  readonly code: number | null
  readonly signal: number | null
}

/** Names of helpers' groups begin with it. */
export const LAUNCH_PREFIX = 'launch-'
/** A helper that dies sooner would only die again. */
const RESTART_AFTER_MS = 1_000

interface Pending {
  readonly resolve: (results: readonly StepResult[]) => void
  readonly reject: (error: HostKitError) => void
}

export interface HostKitOptions {
  /** The `faas-hostkit` binary. */
  readonly path: string
  readonly log: LogSink
  /** Held by the helper while it lives: a new one acts only when every older one is gone. */
  readonly lockPath?: string
}

export class HostKit implements AsyncDisposable {
  readonly #options: HostKitOptions
  readonly #pending = new Map<number, Pending>()
  readonly #exits = new Map<number, (exit: ProcessExit) => void>()
  readonly #listeners = new Set<(event: HostKitEvent) => void>()
  #child: ChildProcess | null = null
  #lastId = 0
  #generation = 0
  #startedAt = 0
  #group: { readonly dir: string; readonly parents: readonly string[]; readonly outside: string } | null = null
  #closed = false

  constructor(options: HostKitOptions) {
    this.#options = options
  }

  /** Counts the helpers started so far; a descriptor it holds is valid in one generation only. */
  get generation(): number {
    return this.#generation
  }

  /** Of the running helper; its descriptors are `/proc/<pid>/fd/<n>`. Starts one when there is none. */
  get pid(): number {
    const pid = this.#start().pid
    if (pid === undefined) throw new HostKitError('The host helper could not be started.', null, 0, 0)
    return pid
  }

  /** Runs steps in order, in one round trip. The first failure ends the request. @throws HostKitError */
  run(steps: readonly Step[]): Promise<readonly StepResult[]> {
    if (this.#closed) return Promise.reject(new HostKitError('The host helper was closed.', null, 0, 0))
    return new Promise((resolve, reject) => {
      const child = this.#start()
      this.#lastId = (this.#lastId % 0x7fffffff) + 1
      const id = this.#lastId
      if (this.#pending.size === 0) holdOpen(child)
      this.#pending.set(id, { resolve, reject })
      child.stdin?.write(encodeRequest(id, steps))
    })
  }

  /** One step, its text. */
  async call(...step: Step): Promise<string> {
    const [result] = await this.run([step])
    return result?.text ?? ''
  }

  /** Calls back once when a launched sandbox's first process ends. Returns how to stop listening. */
  onProcessExit(pid: number, listener: (exit: ProcessExit) => void): () => void {
    this.#exits.set(pid, listener)
    return () => {
      if (this.#exits.get(pid) === listener) this.#exits.delete(pid)
    }
  }

  /** Other events of the helper. */
  onEvent(listener: (event: HostKitEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Moves the helper into a group of its own below `parents`, outermost first. Once per helper. */
  async enterGroup(parents: readonly string[], outside: string): Promise<void> {
    const dir = join(parents.at(-1) ?? outside, `${LAUNCH_PREFIX}${this.pid}`)
    if (this.#group?.dir === dir) return
    await this.run([...[...parents, dir].map((one): Step => ['mkdir', one, '755']), ['control', join(dir, 'cgroup.procs'), '0']])
    this.#group = { dir, parents, outside }
  }

  /** The helper's own group; null before `enterGroup`. */
  get group(): string | null {
    return this.#group?.dir ?? null
  }

  async #leaveGroup(): Promise<void> {
    if (this.#group === null || this.#child === null) return
    const { dir, parents, outside } = this.#group
    this.#group = null
    await this.run([['control', join(outside, 'cgroup.procs'), '0'], ...[dir, ...parents.toReversed()].map((one): Step => ['rmdir', one])])
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return
    await this.#leaveGroup().catch((error: unknown) => this.#options.log.warn({ error: String(error) }, 'the group of the host helper was not removed'))
    this.#closed = true
    const child = this.#child
    if (child === null || child.exitCode !== null || child.signalCode !== null) return
    holdOpen(child) // its end is awaited here
    await new Promise<void>((resolve) => {
      child.once('close', () => resolve())
      child.stdin?.end()
      child.kill('SIGKILL')
    })
  }

  #start(): ChildProcess {
    if (this.#child !== null) return this.#child
    const { path, log, lockPath } = this.#options
    const child = spawn(path, lockPath === undefined ? ['serve'] : ['serve', lockPath], { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' } })
    this.#child = child
    this.#startedAt = performance.now()
    this.#generation++
    const reader = new HostKitReader()
    child.stdout.on('data', (chunk: Buffer) => {
      for (const message of reader.push(chunk)) this.#receive(message)
    })
    child.stderr.on('data', (chunk: Buffer) => log.warn({ text: chunk.toString('utf8').trimEnd() }, 'host helper wrote to stderr'))
    // EPIPE after its death: `close` reports it.
    child.stdin.on('error', (error) => log.debug({ error: error.message }, 'host helper takes no input'))
    let cause = 'it ended'
    child.on('error', (error) => {
      cause = error.message
      this.#gone(child, cause)
    })
    child.on('close', (code, signal) => this.#gone(child, cause === 'it ended' ? `it ended (${signal ?? code})` : cause))
    letGo(child)
    return child
  }

  #gone(child: ChildProcess, why: string): void {
    if (this.#child !== child) return
    this.#child = null
    if (!this.#closed) this.#options.log.error({ why, pending: this.#pending.size }, 'host helper is gone')
    const pending = [...this.#pending.values()]
    this.#pending.clear()
    this.#exits.clear()
    for (const { reject } of pending) reject(new HostKitError(`The host helper is gone: ${why}.`, null, 0, 0))
    if (this.#closed || performance.now() - this.#startedAt < RESTART_AFTER_MS) return
    this.#start()
    for (const listener of this.#listeners) listener({ event: 'restarted' })
  }

  #receive(message: HostKitMessage): void {
    if (message.type === 'event') {
      const event = JSON.parse(message.json) as HostKitEvent
      if (event.event === 'exit') {
        const listener = this.#exits.get(event.pid)
        this.#exits.delete(event.pid)
        listener?.(event)
      }
      for (const listener of this.#listeners) listener(event)
      return
    }
    const pending = this.#pending.get(message.id)
    this.#pending.delete(message.id)
    if (this.#pending.size === 0 && this.#child !== null) letGo(this.#child)
    if (pending === undefined) return
    if (!message.failed) {
      pending.resolve(message.results)
      return
    }
    const failure = JSON.parse(message.results.at(-1)?.text ?? '{}') as { step: number; op: string; errno: number; message: string }
    pending.reject(new HostKitError(`${failure.op}: ${failure.message}`, failure.op, failure.errno, failure.step))
  }
}

export type HostKitEvent =
  | ({ readonly event: 'exit'; readonly pid: number } & ProcessExit)
  /** A new helper took over: what the old one held or watched for is to be asked for again. */
  | { readonly event: 'restarted' }
  | { readonly event: 'over-limit'; readonly id: string; readonly bytes: number }

/** An idle helper must not keep the process alive: it ends by itself when the process does. */
function letGo(child: ChildProcess): void {
  child.unref()
  for (const stream of [child.stdin, child.stdout, child.stderr]) if (stream instanceof Socket) stream.unref()
}

function holdOpen(child: ChildProcess): void {
  child.ref()
  for (const stream of [child.stdin, child.stdout, child.stderr]) if (stream instanceof Socket) stream.ref()
}
