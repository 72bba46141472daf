import { Runtime } from './types.js'

export interface FunctionDefinition {
  readonly name: string
  readonly runtime: Runtime | `${Runtime}`
  readonly envVars: Readonly<Record<string, string>>
  readonly memoryMb: number
  readonly cpuCores: number
  readonly timeoutMs: number
}

/** Collects the settings of a function; `build()` gives plain data to spread into `execute`. */
export class FunctionBuilder {
  #runtime: Runtime | `${Runtime}` = Runtime.Auto
  #envVars: Record<string, string> = {}
  #memoryMb = 256
  #cpuCores = 1
  #timeoutMs = 30_000

  constructor(private readonly name: string) {}

  runtime(runtime: Runtime | `${Runtime}`): this {
    this.#runtime = runtime
    return this
  }

  withEnv(key: string, value: string): this {
    this.#envVars[key] = value
    return this
  }

  withMemory(mb: number): this {
    this.#memoryMb = mb
    return this
  }

  withCPU(cores: number): this {
    this.#cpuCores = cores
    return this
  }

  withTimeout(ms: number): this {
    this.#timeoutMs = ms
    return this
  }

  build(): FunctionDefinition {
    return {
      name: this.name,
      runtime: this.#runtime,
      envVars: { ...this.#envVars },
      memoryMb: this.#memoryMb,
      cpuCores: this.#cpuCores,
      timeoutMs: this.#timeoutMs,
    }
  }
}
