/** Runs the real agent on this host for tests: over a socket or over its standard streams. */
import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { AgentClient } from '../agent-client.js'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))
export const AGENT_BINARY = join(ROOT, 'agent/target/release/faas-agent')

export class AgentProcess implements AsyncDisposable {
  readonly socketPath: string
  readonly child: ChildProcess
  readonly #directory: string

  private constructor(directory: string, child: ChildProcess) {
    this.#directory = directory
    this.socketPath = join(directory, 'agent.sock')
    this.child = child
  }

  /** Starts an agent that listens; resolves once it said it is ready. */
  static async listen(): Promise<AgentProcess> {
    buildAgent()
    const directory = mkdtempSync(join(tmpdir(), 'faas-agent-test-'))
    const child = spawn(AGENT_BINARY, ['--listen', join(directory, 'agent.sock'), '--allow-local-peers'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const agent = new AgentProcess(directory, child)
    const [ready] = (await once(child.stdout ?? child, 'data')) as [Buffer]
    if (!ready.toString().startsWith('faas-agent ready')) throw new Error(`unexpected greeting: ${ready.toString()}`)
    return agent
  }

  /** Starts an agent that speaks on its standard streams. */
  static stdio(): AgentProcess {
    buildAgent()
    const child = spawn(AGENT_BINARY, ['--stdio'], { stdio: ['pipe', 'pipe', 'pipe'] })
    return new AgentProcess(mkdtempSync(join(tmpdir(), 'faas-agent-test-')), child)
  }

  client(): Promise<AgentClient> {
    return AgentClient.connectUnix(this.socketPath)
  }

  async socket(): Promise<Socket> {
    const socket = connect(this.socketPath)
    await once(socket, 'connect')
    return socket
  }

  /** A line of /proc/<pid>/status, in bytes. */
  memoryBytes(line: 'VmRSS' | 'VmHWM' = 'VmRSS'): number {
    const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8')
    return Number(new RegExp(`${line}:\\s+(\\d+) kB`).exec(status)?.[1]) * 1024
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.alive) {
      const gone = once(this.child, 'exit')
      this.child.kill('SIGKILL')
      await gone
    }
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

function buildAgent(): void {
  const script = join(ROOT, 'scripts/build-agent.sh')
  execFileSync(script, { stdio: 'inherit' })
  if (!existsSync(AGENT_BINARY)) throw new Error(`${script} did not build ${AGENT_BINARY}`)
}

/** Collects output as text. */
export class Collected {
  stdout = ''
  stderr = ''
  readonly onOutput = (stream: 'stdout' | 'stderr', bytes: Uint8Array): void => {
    this[stream] += Buffer.from(bytes).toString('latin1')
  }
}

/** Polls until the condition holds. */
export async function until(what: string, condition: () => boolean | Promise<boolean>, timeoutMs = 10_000): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}
