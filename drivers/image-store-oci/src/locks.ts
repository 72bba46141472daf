/**
 * Locks between processes that share one image directory, and within this one.
 *
 * I1. The helper holds them (flock) and ends with this process, so a lock never outlives its owner.
 * I2. When the helper is killed, a new one takes every held lock again at once. If one can not be had, somebody
 *     else may be changing what it guards: from then on every call fails.
 * I3. Order, so that no two operations wait for each other: image > content > blob or layer > state.
 */
import { spawn, type ChildProcess } from 'node:child_process'
import { Socket } from 'node:net'
import type { Readable, Writable } from 'node:stream'
import { FaasError } from '@faas-platform/core'
import { reasonOf } from './single-flight.js'

export interface Lock {
  /** Idempotent. */
  release(): void
  /** Removes the lock file as well. Only while held exclusively. Idempotent with `release`. */
  discard(): void
}

type Mode = 'shared' | 'exclusive'

interface Pending {
  resolve(outcome: 'ok' | 'busy'): void
  reject(error: Error): void
}

interface Helper {
  readonly child: ChildProcess
  readonly stdin: Writable
  readonly stdout: Readable
  readonly pending: Map<string, Pending>
  /** It can be started at all. */
  answered: boolean
}

export class DirectoryLocks {
  readonly #held = new Map<string, { readonly name: string; readonly mode: Mode }>()
  #helper: Helper | undefined
  #failure: FaasError | undefined
  #nextId = 0
  #closed = false

  constructor(private readonly options: { readonly dir: string; readonly hostkitPath: string }) {}

  /** Waits until the lock is free. @throws FaasError `store/unavailable`; the signal's reason */
  async acquire(name: string, mode: Mode, signal: AbortSignal): Promise<Lock> {
    const lock = await this.#request(name, mode, 'wait', signal)
    if (lock === undefined) throw new FaasError('store/unavailable', { message: 'The lock helper gave up a lock that was waited for.' })
    return lock
  }

  /** Undefined when somebody else holds it. */
  tryAcquire(name: string, mode: Mode): Promise<Lock | undefined> {
    return this.#request(name, mode, 'try')
  }

  async #request(name: string, mode: Mode, how: 'wait' | 'try', signal?: AbortSignal): Promise<Lock | undefined> {
    signal?.throwIfAborted()
    if (this.#closed) throw new FaasError('store/unavailable', { message: 'The image store is closed.' })
    if (this.#failure !== undefined) throw this.#failure
    const helper = (this.#helper ??= this.#start())
    const id = String(this.#nextId++)
    let onAbort: (() => void) | undefined
    try {
      const outcome = await new Promise<'ok' | 'busy'>((resolve, reject) => {
        onAbort = () => {
          helper.stdin.write(`release ${id}\n`)
          reject(signal === undefined ? new Error('aborted') : reasonOf(signal))
        }
        signal?.addEventListener('abort', onAbort, { once: true })
        ask(helper, id, mode, how, name, { resolve, reject })
      })
      return outcome === 'ok' ? this.#lock(id, name, mode) : undefined
    } finally {
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
      helper.pending.delete(id)
      hold(helper)
    }
  }

  #lock(id: string, name: string, mode: Mode): Lock {
    this.#held.set(id, { name, mode })
    const end = (verb: 'release' | 'discard'): void => {
      if (this.#held.delete(id)) this.#helper?.stdin.write(`${verb} ${id}\n`)
    }
    return { release: () => end('release'), discard: () => end('discard') }
  }

  #start(): Helper {
    const child = spawn(this.options.hostkitPath, ['locks', '--dir', this.options.dir], { stdio: ['pipe', 'pipe', 'inherit'] })
    const helper: Helper = { child, stdin: child.stdin, stdout: child.stdout, pending: new Map(), answered: false }
    child.once('error', (cause) => this.#ended(helper, cause))
    child.once('exit', (code, signal) => this.#ended(helper, new Error(`exit ${code ?? signal}`)))
    child.stdin.on('error', () => {}) // it ended, which `exit` tells
    let rest = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      helper.answered = true
      for (const line of lines) answer(helper, line)
    })
    hold(helper)
    return helper
  }

  #ended(helper: Helper, cause: unknown): void {
    const failure = new FaasError('store/unavailable', {
      message: 'The helper that holds the locks of the image store ended.',
      hint: 'Check that faas-hostkit is built and may be started.',
      cause,
    })
    const waiting = [...helper.pending.values()]
    helper.pending.clear()
    if (this.#helper === helper) {
      this.#helper = undefined
      if (this.#held.size > 0 && !this.#closed) this.#takeAgain(helper, failure)
    }
    for (const { reject } of waiting) reject(failure)
  }

  /** I2 */
  #takeAgain(ended: Helper, failure: FaasError): void {
    if (!ended.answered) {
      this.#failure = failure
      return
    }
    const helper = (this.#helper = this.#start())
    const lost = (): void => void (this.#failure ??= failure)
    for (const [id, { name, mode }] of this.#held) {
      const done = (): void => {
        helper.pending.delete(id)
        hold(helper)
      }
      ask(helper, id, mode, 'try', name, {
        resolve: (outcome) => {
          done()
          if (outcome === 'busy') lost()
        },
        reject: () => {
          done()
          lost()
        },
      })
    }
  }

  /** Ends the helper; every lock still held is freed by that. */
  async close(): Promise<void> {
    this.#closed = true
    const helper = this.#helper
    if (helper === undefined) return
    const exited = new Promise((resolve) => helper.child.once('exit', resolve).once('error', resolve))
    helper.child.ref()
    helper.stdin.end()
    await exited
  }
}

function ask(helper: Helper, id: string, mode: Mode, how: 'wait' | 'try', name: string, pending: Pending): void {
  helper.pending.set(id, pending)
  hold(helper)
  helper.stdin.write(`acquire ${id} ${mode} ${how} ${name}\n`)
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
    // A pipe to a child is a socket, which the types of child_process do not say.
    if (stream instanceof Socket) stream[verb]()
  }
}
