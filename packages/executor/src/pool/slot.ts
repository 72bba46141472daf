/** One place in the warm pool, and the key that says which requests it fits. */
import { SLOT_STATES, transition, type Lifecycle, type ResolvedImage, type RuntimeDriver, type Sandbox, type SandboxLimits, type SandboxStats, type NetworkPolicy, type SlotState } from '@faas-platform/core'

/** What a sandbox must be made of to serve a request. */
export interface PoolSpec {
  readonly driver: RuntimeDriver
  readonly image: ResolvedImage
  readonly limits: SandboxLimits
  readonly network: NetworkPolicy
}

/** What a request gets: a sandbox that nobody used before and nobody will after. */
export interface TakenSandbox {
  readonly sandbox: Sandbox
  readonly start: 'warm' | 'cold'
  /** Measured while it was idle; null when it was taken before that. */
  readonly statsBefore: SandboxStats | null
  /** Wakes a sandbox that was frozen while it waited; null when it was not. Call before use. */
  readonly thaw: (() => Promise<void>) | null
}

export class Slot {
  #life: Lifecycle<SlotState> = { state: 'creating', incarnation: 0 }
  sandbox: Sandbox | null = null
  stats: SandboxStats | null = null
  readySinceMs = 0
  /** Settles with whether the sandbox is frozen; null when nobody froze it. */
  frozen: Promise<boolean> | null = null

  get state(): SlotState {
    return this.#life.state
  }

  become(state: SlotState): void {
    this.#life = transition(SLOT_STATES, this.#life, state)
  }
}

export function poolKey({ driver, image, limits, network }: PoolSpec): string {
  return `${driver.name} ${image.digest} ${limits.memoryBytes} ${limits.cpuCores} ${limits.pidsMax} ${limits.writableBytesMax} ${network.mode} ${network.allowCidrs.join()}`
}
