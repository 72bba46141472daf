/**
 * Child processes for the bootstrap: argv only (never a shell string), output
 * captured, a deadline on each.
 */
import { spawn } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import { join } from 'node:path'

const CAPTURE_BYTES_MAX = 64 * 1024 * 1024

/** A failure a person can act on: what went wrong, and what to do about it. */
export class BootstrapError extends Error {
  /** @param {string} message @param {{ hint?: string, cause?: unknown }} [options] */
  constructor(message, { hint, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'BootstrapError'
    this.hint = hint
  }
}

/**
 * Runs a command to its end and captures its output.
 * @param {string} file
 * @param {readonly string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, timeoutMs?: number, input?: string, check?: boolean }} [options]
 *   `check` (default true) turns a non-zero exit into a BootstrapError.
 * @returns {Promise<{ code: number | null, signal: string | null, stdout: string, stderr: string }>}
 */
export function run(file, args, { cwd, env, timeoutMs = 120_000, input, check = true } = {}) {
  return new Promise((resolvePromise, reject) => {
    const child = spawn(file, args, { cwd, env: env ?? process.env, stdio: ['pipe', 'pipe', 'pipe'] })
    const out = capture(child.stdout)
    const err = capture(child.stderr)
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      child.kill('SIGKILL')
    }, timeoutMs)
    child.on('error', (cause) => {
      clearTimeout(timer)
      reject(new BootstrapError(`${file} could not be started: ${cause.message}`, { cause }))
    })
    child.on('close', (code, signal) => {
      clearTimeout(timer)
      const result = { code, signal, stdout: out(), stderr: err() }
      const line = `${file} ${args.join(' ')}`
      if (timedOut) reject(new BootstrapError(`${line} did not end within ${timeoutMs} ms`))
      else if (check && code !== 0) {
        const said = lastLines(result.stderr || result.stdout)
        reject(new BootstrapError(`${line} ended with ${signal ?? code}: ${said}`))
      } else resolvePromise(result)
    })
    // A child that exits without reading its input must not become an unhandled EPIPE.
    child.stdin.on('error', (cause) => {
      if (cause.code !== 'EPIPE') reject(cause)
    })
    child.stdin.end(input ?? '')
  })
}

/** Runs a command with the terminal as its output; resolves with its exit code. */
export function runVisible(file, args, { cwd, env, stdin = 'ignore' } = {}) {
  return new Promise((resolvePromise, reject) => {
    const child = spawn(file, args, { cwd, env: env ?? process.env, stdio: [stdin, 'inherit', 'inherit'] })
    child.on('error', reject)
    child.on('close', (code, signal) => resolvePromise(code ?? (signal ? 128 : 1)))
  })
}

/** First executable called `name` on `path`, or undefined. */
export function which(name, path = process.env.PATH ?? '') {
  for (const dir of path.split(':')) {
    if (dir === '') continue
    const file = join(dir, name)
    if (isExecutable(file)) return file
  }
  return undefined
}

export function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK)
    return statSync(file).isFile()
  } catch {
    // Absent, or not ours to run: both mean "not usable", which is the answer asked for.
    return false
  }
}

export function lastLines(text, count = 4) {
  return text.trim().split('\n').slice(-count).join(' | ')
}

function capture(stream) {
  const chunks = []
  let bytes = 0
  stream.on('data', (chunk) => {
    bytes += chunk.length
    if (bytes <= CAPTURE_BYTES_MAX) chunks.push(chunk)
  })
  return () => Buffer.concat(chunks).toString('utf8')
}
