/** Which runtimes this host has, as a gateway's own probes say. In CI every one must be there. */
import type { GatewayProcess } from './gateway-process.js'

export interface RuntimeState {
  readonly name: string
  readonly usable: boolean
  readonly reason: string
  readonly features: { readonly network: readonly string[]; readonly [feature: string]: unknown }
}

export const ALL_RUNTIMES = ['runc', 'crun', 'gvisor', 'docker'] as const

/** Whether a test of this runtime can run, and if not, why. */
export interface Gate {
  readonly missing: boolean
  readonly reason: string
}

export class HostRuntimes {
  private constructor(private readonly states: readonly RuntimeState[]) {}

  static async of(gateway: GatewayProcess, headers: Readonly<Record<string, string>> = {}): Promise<HostRuntimes> {
    const response = await fetch(`${gateway.url}/api/v1/runtimes`, { headers })
    if (!response.ok) throw new Error(`/api/v1/runtimes answered ${response.status}`)
    return new HostRuntimes((await response.json()) as readonly RuntimeState[])
  }

  /** Usable ones of `wanted`. */
  usable(wanted: readonly string[] = ALL_RUNTIMES): readonly string[] {
    return wanted.filter((name) => !this.gate(name).missing)
  }

  /** For `ctx.skip(gate.missing, gate.reason)`. @throws Error in CI, where every runtime is demanded */
  gate(name: string, feature: (state: RuntimeState) => boolean = () => true): Gate {
    const state = this.states.find((one) => one.name === name)
    const missing = state === undefined || !state.usable || !feature(state)
    const reason = `runtime ${name}: ${state?.reason ?? 'not configured'}`
    if (missing && process.env['CI'] === 'true') throw new Error(`CI needs every runtime. ${reason}`)
    return { missing, reason }
  }
}
