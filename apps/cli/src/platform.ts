/** What the commands need of this machine when they do not ask a gateway. `main.ts` provides the real one. */
import type { Config } from '@faas-platform/config'
import type { Ledger } from '@faas-platform/core'
import type { Executor, RuntimeStatus } from '@faas-platform/executor'

export interface LocalPlatform extends AsyncDisposable {
  readonly executor: Executor
}

export interface Platform {
  /** Beside a running gateway; for keys only. */
  openLedger(dataDir: string): Promise<Ledger>
  /** An executor of its own over the data directory. @throws FaasError `store/locked` when a gateway has it */
  open(config: Config): Promise<LocalPlatform>
  /** Probes every configured runtime in a data directory of its own, which is gone afterwards. */
  probe(config: Config): Promise<readonly RuntimeStatus[]>
  /** Where runtimes, helpers and built images are looked for. */
  toolsDir(config: Config): string
  /** Serves until told to stop. @returns the process's exit code */
  serve(argv: readonly string[], environment: Readonly<Record<string, string | undefined>>): Promise<number>
}
