/**
 * One process per data directory.
 * The claim is an exclusive transaction on a file of its own: the kernel lets go of it when the process ends, however it ends,
 * so that a lock can neither be left behind nor be stolen, which a file with a process id can.
 */
import Sqlite from 'libsql'
import { FaasError } from '@faas-platform/core'
import { isBusy, translate } from './errors.js'

/** Returns what gives the claim back, idempotent. @throws FaasError `store/locked` */
export function lockDataDir(path: string): () => void {
  const lock = new Sqlite(path)
  try {
    lock.exec('PRAGMA busy_timeout=0; PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE')
  } catch (error) {
    lock.close()
    if (!isBusy(error)) throw translate(error)
    throw new FaasError('store/locked', { message: 'Another process uses this data directory.', hint: 'Stop it, or choose another directory with FAAS_DATA_DIR.', cause: error })
  }
  let held = true
  return () => {
    if (!held) return
    held = false
    lock.exec('ROLLBACK')
    lock.close()
  }
}
