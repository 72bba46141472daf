/** The writable layer of a sandbox after its processes are gone. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { FaasError, type RetainedState, type SandboxId } from '@faas-platform/core'
import type { HostKit, Step } from '@faas-platform/host'
import { AGENT_DIR } from './config-json.js'

export interface RetainOptions {
  readonly id: SandboxId
  readonly upper: string
  /** Where it goes. */
  readonly path: string
  readonly hostkit: HostKit
  readonly hostkitPath: string
}

export interface Retaining {
  /** To be run when no process of the sandbox is left. */
  readonly steps: readonly Step[]
  state(): Promise<RetainedState>
}

/** Moves the layer out of the sandbox's directory, without what the platform itself put there. */
export function retainUpper(options: RetainOptions): Retaining {
  const { id, upper, path: kept, hostkit } = options
  return {
    steps: [['rmtree', join(upper, AGENT_DIR)], ['rename', upper, kept]],
    async state() {
      const usage = JSON.parse(await hostkit.call('usage', kept, Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)) as { readonly bytes: number }
      return new RetainedUpper(id, usage.bytes, kept, options)
    },
  }
}

class RetainedUpper implements RetainedState {
  #disposed = false

  constructor(
    readonly sandboxId: SandboxId,
    readonly sizeBytes: number,
    private readonly path: string,
    private readonly options: RetainOptions,
  ) {}

  async *export(signal: AbortSignal): AsyncIterable<Uint8Array> {
    if (this.#disposed) throw new FaasError('execution/result-expired', { message: 'The end state is no longer retained.' })
    signal.throwIfAborted()
    const child = spawn(this.options.hostkitPath, ['pack', '--root', this.path, '--whiteouts', 'oci'], { stdio: ['ignore', 'pipe', 'pipe'], signal })
    const stderr: Buffer[] = []
    child.stderr.on('data', (chunk: Buffer) => void stderr.push(chunk))
    const ended = new Promise<number | null>((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) => resolve(code))
    })
    ended.catch(() => {})
    try {
      for await (const chunk of child.stdout) yield chunk as Uint8Array
      const code = await ended
      if (code !== 0) {
        throw new FaasError('sandbox/file-error', {
          message: 'The retained files could not be packed.',
          cause: new Error(Buffer.concat(stderr).toString('utf8').slice(0, 2000)),
        })
      }
    } finally {
      child.kill('SIGKILL')
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return
    this.#disposed = true
    await this.options.hostkit.call('rmtree', this.path)
  }
}
