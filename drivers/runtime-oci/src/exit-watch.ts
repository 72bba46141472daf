/** Decides once, from the first sign of the end, why a sandbox is no more. */
import type { SandboxExit } from '@faas-platform/core'

export class ExitWatch {
  readonly exited: Promise<SandboxExit>
  #exit: SandboxExit | null = null
  #settle: (exit: SandboxExit) => void = () => {}

  constructor() {
    this.exited = new Promise((resolve) => (this.#settle = resolve))
  }

  get exit(): SandboxExit | null {
    return this.#exit
  }

  /** The first call counts. */
  end(exit: SandboxExit): void {
    if (this.#exit !== null) return
    this.#exit = exit
    this.#settle(exit)
  }
}
