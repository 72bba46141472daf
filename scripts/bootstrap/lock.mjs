/**
 * One bootstrap at a time per tools directory. The lock is a file holding its
 * owner's pid and start time; a dead owner's lock is taken over.
 */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { BootstrapError } from './process.mjs'
import { progress } from './progress.mjs'

const POLL_MS = 200

/**
 * @template T
 * @param {string} dir Where the lock lives; must exist.
 * @param {string} name
 * @param {() => Promise<T>} task
 * @param {{ timeoutMs?: number }} [options]
 * @returns {Promise<T>}
 */
export async function withLock(dir, name, task, { timeoutMs = 900_000 } = {}) {
  const lock = join(dir, `.lock-${name}`)
  const deadline = Date.now() + timeoutMs
  let told = false
  while (!acquire(lock)) {
    if (!told) progress(name, 'another process is at it; waiting for it')
    told = true
    if (Date.now() > deadline) throw new BootstrapError(`${lock} was held for more than ${timeoutMs} ms`)
    await delay(POLL_MS)
  }
  try {
    return await task()
  } finally {
    rmSync(lock, { force: true })
  }
}

/** link(2) is atomic and the file appears with its content, so there is no half-made lock. */
function acquire(lock) {
  const own = `${lock}.${process.pid}`
  writeFileSync(own, `${process.pid} ${startTime(process.pid)}`)
  try {
    linkSync(own, lock)
    return true
  } catch (cause) {
    if (cause.code !== 'EEXIST') throw cause
    removeDead(lock)
    return false
  } finally {
    rmSync(own)
  }
}

function removeDead(lock) {
  const owner = readOwner(lock)
  if (owner === undefined || isAlive(owner)) return
  const aside = `${lock}.dead.${process.pid}`
  try {
    renameSync(lock, aside)
  } catch (cause) {
    if (cause.code === 'ENOENT') return // somebody else was faster
    throw cause
  }
  // Between reading and renaming another process may have taken the lock: give it back.
  if (readOwner(aside) !== owner) linkSync(aside, lock)
  rmSync(aside)
}

function readOwner(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch (cause) {
    if (cause.code === 'ENOENT') return undefined
    throw cause
  }
}

function isAlive(owner) {
  const [pid, start] = owner.split(' ')
  return startTime(pid) === start
}

/** Field 22 of /proc/PID/stat; a reused pid has another. '' when the process is gone. */
export function startTime(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
  } catch (cause) {
    if (cause.code === 'ENOENT' || cause.code === 'ESRCH') return ''
    throw cause
  }
}
