/**
 * The directory of a store, and the temporary directories of the processes that use it.
 *
 *   state.json  blobs/sha256/<hex>  layers/<hex>/{fs,layer.json}  tmp/<process>/<n>/  locks/
 *
 * I1. Everything unfinished lies under `tmp/<process>/`, and that process holds the lock `tmp-<process>`.
 * I2. Who can take that lock knows that its owner is gone, and removes the directory.
 */
import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { systemIds, type Ids, type LogSink } from '@faas-platform/core'
import { storeFailure } from './failures.js'
import type { DirectoryLocks } from './locks.js'

export interface Workspace {
  /** A fresh directory for one operation; removed when `use` ends, however it ends. */
  temporary<T>(use: (dir: string) => Promise<T>): Promise<T>
  close(): Promise<void>
}

export function storePaths(dir: string): { readonly state: string; readonly blobs: string; readonly layers: string; readonly tmp: string; readonly locks: string } {
  return { state: join(dir, 'state.json'), blobs: join(dir, 'blobs'), layers: join(dir, 'layers'), tmp: join(dir, 'tmp'), locks: join(dir, 'locks') }
}

/** Makes the directories, reclaims what killed processes left, and claims an own temporary directory. */
export async function openWorkspace(dir: string, locks: DirectoryLocks, log: LogSink, ids: Ids = systemIds): Promise<Workspace> {
  const paths = storePaths(dir)
  const own = ids.uuid()
  const ownDir = join(paths.tmp, own)
  try {
    // The unpacked files keep their owners and set-id bits, so nobody else may walk in.
    await mkdir(dir, { recursive: true, mode: 0o700 })
    for (const path of [join(paths.blobs, 'sha256'), paths.layers, paths.tmp, paths.locks]) await mkdir(path, { recursive: true, mode: 0o700 })
    const lock = await locks.acquire(`tmp-${own}`, 'exclusive', new AbortController().signal)
    await mkdir(ownDir, { mode: 0o700 })
    await reclaim(paths.tmp, own, locks, log)
    await reclaimLocks(paths.locks, locks)
    let count = 0
    return {
      async temporary(use) {
        const operationDir = join(ownDir, String(count++))
        try {
          await mkdir(operationDir, { mode: 0o700 })
          return await use(operationDir)
        } catch (error) {
          throw storeFailure(error, 'using its temporary directory')
        } finally {
          await rm(operationDir, { recursive: true, force: true, maxRetries: 5 })
        }
      },
      async close() {
        await rm(ownDir, { recursive: true, force: true, maxRetries: 5 })
        lock.discard()
      },
    }
  } catch (error) {
    throw storeFailure(error, 'opening its directory')
  }
}

async function reclaim(tmp: string, own: string, locks: DirectoryLocks, log: LogSink): Promise<void> {
  for (const name of await readdir(tmp)) {
    if (name === own) continue
    const lock = await locks.tryAcquire(`tmp-${name}`, 'exclusive')
    if (lock === undefined) continue // its owner lives
    try {
      // The owner's unpacker may still be at its last write; it ends with the pipe that fed it.
      await rm(join(tmp, name), { recursive: true, force: true, maxRetries: 10 })
      log.info({ directory: name }, 'removed what an ended process left in the image store')
    } finally {
      lock.discard()
    }
  }
}

/** Files of locks that nobody holds any more; `state` and `content` always stay. */
async function reclaimLocks(dir: string, locks: DirectoryLocks): Promise<void> {
  for (const name of await readdir(dir)) {
    if (!name.includes('-')) continue
    const lock = await locks.tryAcquire(name, 'exclusive')
    lock?.discard()
  }
}
