/** Opens the ledger of a data directory. */
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { FaasError, type Ledger, type LogSink } from '@faas-platform/core'
import { lockDataDir } from './data-dir-lock.js'
import { Database } from './database.js'
import { SqliteLedger } from './sqlite-ledger.js'

export interface OpenLedgerOptions {
  readonly dataDir: string
  readonly log: LogSink
  /**
   * `exclusive`: claims the data directory; for the one process that runs things in it.
   * `shared`: beside such a process, for small administration (keys). Default `exclusive`.
   */
  readonly access?: 'exclusive' | 'shared'
}

/** @throws FaasError `store/locked`, `store/corrupt`, `store/unavailable` */
export async function openLedger({ dataDir, log, access = 'exclusive' }: OpenLedgerOptions): Promise<Ledger> {
  try {
    await mkdir(dataDir, { recursive: true, mode: 0o711 }) // passable; the ledger's own files are not readable for others
  } catch (error) {
    throw new FaasError('store/unavailable', { message: `The data directory ${dataDir} can not be made.`, hint: 'Choose another with FAAS_DATA_DIR.', cause: error })
  }
  const release = access === 'exclusive' ? lockDataDir(join(dataDir, 'lock.sqlite')) : () => undefined
  try {
    return new SqliteLedger(new Database(join(dataDir, 'ledger.sqlite'), log), release)
  } catch (error) {
    release()
    throw error
  }
}
