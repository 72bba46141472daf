import { spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const WORKER = fileURLToPath(new URL('../test-support/async-worker.ts', import.meta.url))
const KILLS = 10
const JOBS_PER_LIFE = 12

/** One life of the worker: killed after `lines` lines, or, with null, allowed to finish. */
async function live(dataDir: string, first: number, count: number, lines: number | null): Promise<string[]> {
  const child = spawn(process.execPath, [join(ROOT, 'node_modules/vite-node/vite-node.mjs'), '--root', ROOT, '--config', join(ROOT, 'vitest.config.ts'), WORKER, dataDir, String(count), String(first)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  let complaints = ''
  child.stderr.on('data', (bytes: Buffer) => { complaints += bytes.toString() })
  await new Promise<void>((resolve, reject) => {
    const deadline = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`The worker did not get there. It said:\n${said}\n${complaints}`))
    }, 60_000)
    child.stdout.on('data', (bytes: Buffer) => {
      said += bytes.toString()
      if (lines !== null && said.split('\n').length > lines) child.kill('SIGKILL')
    })
    child.once('close', (code, signal) => {
      clearTimeout(deadline)
      if (signal === 'SIGKILL' || code === 0) resolve()
      else reject(new Error(`The worker failed with ${code}. ${complaints}`))
    })
  })
  return said.split('\n').slice(0, -1)
}

test(`over ${KILLS} kills no accepted asynchronous execution is lost, and none ever shows two results`, async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'faas-executor-kill-'))
  const accepted = new Map<string, string>()
  const results = new Map<string, string>()
  const note = (lines: readonly string[]): void => {
    for (const line of lines) {
      const [what, id = '', ...rest] = line.split(' ')
      if (what === 'accepted') accepted.set(id, rest[0] ?? '')
      if (what !== 'result') continue
      const result = rest.join(' ')
      if (results.has(id)) expect(result, `the result of ${id} stays what it was`).toBe(results.get(id))
      results.set(id, result)
    }
  }
  try {
    for (let round = 0; round < KILLS; round++) note(await live(dataDir, round * JOBS_PER_LIFE, JOBS_PER_LIFE, 2 + ((round * 7) % 30)))
    const last = await live(dataDir, 0, 0, null)
    note(last)
    expect(last.at(-1)).toBe('all done')
    expect(accepted.size).toBeGreaterThan(KILLS)
    for (const [id, kind] of accepted) {
      const result = results.get(id)
      expect(result, `${id} has a result`).toBeDefined()
      // Only what may not run twice may be reported as interrupted instead.
      expect(result, id).toMatch(kind === 'once' ? /^(exited [0-9a-f-]{36}|error )$/ : /^exited [0-9a-f-]{36}$/)
    }
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 180_000)
