/** Names of host resources carry their owner, so that two gateways on one host never take away each other's. */
import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'

/** Eight hex digits of the data directory's real path. The directory must exist. */
export function dataDirId(dataDir: string): string {
  return createHash('sha256').update(realpathSync(dataDir)).digest('hex').slice(0, 8)
}
