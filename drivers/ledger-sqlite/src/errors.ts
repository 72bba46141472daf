/** Turns what SQLite says into the platform's errors; the original stays as the cause. */
import { FaasError } from '@faas-platform/core'

const CORRUPT = new Set(['SQLITE_CORRUPT', 'SQLITE_NOTADB'])
const UNAVAILABLE = ['SQLITE_FULL', 'SQLITE_IOERR', 'SQLITE_READONLY', 'SQLITE_BUSY', 'SQLITE_LOCKED', 'SQLITE_CANTOPEN', 'SQLITE_NOMEM']

export function translate(thrown: unknown): FaasError {
  if (thrown instanceof FaasError) return thrown
  const code = codeOf(thrown)
  if (CORRUPT.has(code)) {
    return new FaasError('store/corrupt', { message: 'The ledger failed its check.', hint: 'Move ledger.sqlite away to start with an empty ledger, or restore it from a backup.', cause: thrown })
  }
  if (UNAVAILABLE.some((prefix) => code.startsWith(prefix))) {
    const full = code === 'SQLITE_FULL'
    return new FaasError('store/unavailable', {
      message: full ? 'The disk of the data directory is full.' : 'The ledger can not be written or read at the moment.',
      hint: full ? 'Free some space; nothing that was acknowledged is lost.' : 'See the log for the cause.',
      details: { sqlite: code },
      cause: thrown,
    })
  }
  return new FaasError('internal/bug', { message: 'The ledger refused a statement.', details: { sqlite: code }, cause: thrown })
}

export function isBusy(thrown: unknown): boolean {
  return codeOf(thrown).startsWith('SQLITE_BUSY') || codeOf(thrown).startsWith('SQLITE_LOCKED')
}

function codeOf(thrown: unknown): string {
  return typeof thrown === 'object' && thrown !== null && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : 'unknown'
}
