/** The agent's handle of a command, with what only the host can know: whether the OOM killer struck. */
import type { AgentExec } from '@faas-platform/agent-client'
import type { ExecExit, ExecHandle } from '@faas-platform/core'

export class ExecWithOom implements ExecHandle {
  readonly #exec: AgentExec
  readonly #exit: Promise<ExecExit>

  constructor(exec: AgentExec, oomStruck: () => boolean, explain: (error: unknown) => Promise<unknown>) {
    this.#exec = exec
    this.#exit = exec.wait().then(
      ({ exitCode, signal, oomKilled, usage }) => ({ exitCode, signal, usage, oomKilled: oomKilled || oomStruck() }),
      async (error: unknown) => {
        throw await explain(error)
      },
    )
    // `wait` hands the rejection to whoever asks; nobody has to.
    this.#exit.catch(() => {})
  }

  get pid(): number {
    return this.#exec.pid
  }

  wait(): Promise<ExecExit> {
    return this.#exit
  }

  writeStdin(bytes: Uint8Array): Promise<void> {
    return this.#exec.writeStdin(bytes)
  }

  closeStdin(): Promise<void> {
    return this.#exec.closeStdin()
  }

  kill(signal: string): Promise<void> {
    return this.#exec.kill(signal)
  }

  resize(cols: number, rows: number): Promise<void> {
    return this.#exec.resize(cols, rows)
  }
}
