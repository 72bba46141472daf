/**
 * Locks between processes that share one image directory, and within this one.
 *
 * The helper holds them (flock) and dies with this process, so a lock never outlives its owner.
 * Lock order, so that no two operations wait for each other: content > image > blob or layer > state.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import type { Readable, Writable } from 'node:stream'
import { FaasError } from '@faas-platform/core'

export interface Lock {
  /** Idempotent. */
  release(): void
  /** Removes the lock file as well. Only while held exclusively. Idempotent with `release`. */
  discard(): void
}

interface Pending {
  resolve(outcome: 'ok' | 'busy'): void
  reject(error: Error): void
}

interface Helper {
  readonly child: ChildProcess
  readonly stdin: Writable
  readonly stdout: Readable
  readonly pending: Map<string, Pending>
  failure: FaasError | undefined
}

export class DirectoryLocks {
  #helper: Helper | undefined
  #nextId = 0
  #closed = false

  constructor(private readonly options: { readonly dir: string; readonly hostkitPath: string }) {}

  /** Waits until the lock is free. @throws FaasError `store/unavailable`; the signal's reason */
  async acquire(name: string, mode: 'shared' | 'exclusive', signal: AbortSignal): Promise<Lock> {
    const lock = await this.#request(name, mode, 'wait', signal)
    if (lock === undefined) throw new FaasError('store/unavailable', { message: 'The lock helper gave up a lock that was waited for.' })
    return lock
  }

  /** Undefined when somebody else holds it. */
  tryAcquire(name: string, mode: 'shared' | 'exclusive'): Promise<Lock | undefined> {
    return this.#request(name, mode, 'try')
  }

  async #request(name: string, mode: string, how: string, signal?: AbortSignal): Promise<Lock | undefined> {
    signal?.throwIfAborted()
    const helper = this.#start()
    const id = String(this.#nextId++)
    let over = false
    const end = (verb: 'release' | 'discard'): void => {
      if (over) return
      over = true
      if (helper.failure === undefined) helper.stdin.write(`${verb} ${id}\n`)
    }
    let onAbort: (() => void) | undefined
    try {
      const outcome = await new Promise<'ok' | 'busy'>((resolve, reject) => {
        if (helper.failure !== undefined) {
          reject(helper.failure)
          return
        }
        helper.pending.set(id, { resolve, reject })
        hold(helper)
        onAbort = () => {
          end('release')
          reject(signal?.reason instanceof Error ? signal.reason : new DOMException('Aborted', 'AbortError'))
        }
        signal?.addEventListener('abort', onAbort, { once: true })
        helper.stdin.write(`acquire ${id} ${mode} ${how} ${name}\n`)
      })
      return outcome === 'ok' ? { release: () => end('release'), discard: () => end('discard') } : undefined
    } finally {
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
      helper.pending.delete(id)
      hold(helper)
    }
  }

  #start(): Helper {
    if (this.#closed) throw new FaasError('store/unavailable', { message: 'The image store is closed.' })
    if (this.#helper !== undefined) return this.#helper
    const child = spawn(this.options.hostkitPath, ['locks', '--dir', this.options.dir], { stdio: ['pipe', 'pipe', 'inherit'] })
    const helper: Helper = { child, stdin: child.stdin, stdout: child.stdout, pending: new Map(), failure: undefined }
    // Every lock is gone with the helper: nothing that relied on one may go on, so the store stays failed.
    const fail = (cause: unknown): void => {
      helper.failure ??= new FaasError('store/unavailable', {
        message: 'The helper that holds the locks of the image store ended.',
        hint: 'Check that faas-hostkit is built and may be started, then restart.',
        cause,
      })
      for (const { reject } of helper.pending.values()) reject(helper.failure)
    }
    child.on('error', fail)
    child.on('exit', (code, signal) => fail(new Error(`exit ${code ?? signal}`)))
    child.stdin.on('error', fail)
    let rest = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) answer(helper, line)
    })
    this.#helper = helper
    hold(helper)
    return helper
  }

  /** Ends the helper; every lock still held is freed by that. */
  async close(): Promise<void> {
    this.#closed = true
    const helper = this.#helper
    if (helper === undefined || helper.child.exitCode !== null || helper.child.signalCode !== null || helper.child.pid === undefined) return
    const exited = new Promise((resolve) => helper.child.once('exit', resolve))
    helper.child.ref()
    helper.stdin.end()
    await exited
  }
}

function answer(helper: Helper, line: string): void {
  const [word, id = '', ...reason] = line.split(' ')
  const pending = helper.pending.get(id)
  if (pending === undefined) return // given up meanwhile
  if (word === 'ok' || word === 'busy') pending.resolve(word)
  else pending.reject(new FaasError('store/unavailable', { message: 'A lock of the image store could not be taken.', cause: new Error(reason.join(' ')) }))
}

/** Keeps the event loop alive only while an answer is awaited, so that a script may simply end. */
function hold(helper: Helper): void {
  const verb = helper.pending.size > 0 ? 'ref' : 'unref'
  helper.child[verb]()
  for (const stream of [helper.stdin, helper.stdout]) {
    if (verb in stream && typeof stream[verb as keyof typeof stream] === 'function') (stream as unknown as Record<string, () => void>)[verb]?.()
  }
}
