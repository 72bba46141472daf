/** Foreign failures of file system, stream and helper, translated once. */
import { FaasError } from '@faas-platform/core'

const DISK_FULL = new Set(['ENOSPC', 'EDQUOT'])

/** The errno name of a Node error, through its causes. */
export function errnoOf(error: unknown): string | undefined {
  for (let depth = 0; error instanceof Error && depth < 5; depth++) {
    if ('code' in error && typeof error.code === 'string' && /^E[A-Z0-9]+$/.test(error.code)) return error.code
    error = error.cause
  }
  return undefined
}

export function isMissing(error: unknown): boolean {
  const errno = errnoOf(error)
  return errno === 'ENOENT' || errno === 'ENOTDIR'
}

/** File system failures become `store/unavailable`; what is already a `FaasError`, and aborts, stay as they are. */
export function storeFailure(error: unknown, what: string): unknown {
  if (error instanceof FaasError) return error
  const errno = errnoOf(error)
  if (errno === undefined) return error
  return DISK_FULL.has(errno) ? diskFull(what, error) : new FaasError('store/unavailable', { message: `The image store failed while ${what} (${errno}).`, cause: error })
}

export function diskFull(what: string, cause?: unknown): FaasError {
  return new FaasError('store/unavailable', {
    message: `The disk is full: ${what} was given up and nothing of it is kept.`,
    hint: 'Free space on the file system of the data directory, for example by removing unused images.',
    cause,
  })
}
