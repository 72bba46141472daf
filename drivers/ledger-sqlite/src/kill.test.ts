import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { asId, silentLog, type ExecutionId } from '@faas-platform/core'
import { openLedger } from './open-ledger.js'

const ROOT = fileURLToPath(new URL('../../../', import.meta.url))
const WRITER = fileURLToPath(new URL('../test-support/writer.ts', import.meta.url))
const KILLS = 8

/** Starts the writer, lets it acknowledge `acks` writes, and kills it in the middle of the next. Returns its words. */
async function writeUntilKilled(dataDir: string, first: number, acks: number): Promise<string[]> {
  const child: ChildProcess = spawn(process.execPath, [join(ROOT, 'node_modules/vite-node/vite-node.mjs'), '--root', ROOT, '--config', join(ROOT, 'vitest.config.ts'), WRITER, dataDir, String(first)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  let complaints = ''
  child.stderr?.on('data', (bytes: Buffer) => { complaints += bytes.toString() })
  await new Promise<void>((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`The writer said only ${said.length} bytes. ${complaints}`)), 60_000)
    child.stdout?.on('data', (bytes: Buffer) => {
      said += bytes.toString()
      if (said.split('\n').length > acks) child.kill('SIGKILL')
    })
    child.once('close', (_code, signal) => {
      clearTimeout(deadline)
      if (signal === 'SIGKILL') resolve()
      else reject(new Error(`The writer ended by itself. ${complaints}`))
    })
  })
  return said.split('\n').slice(0, -1) // What follows the last line feed was not said to its end.
}

test(`nothing that was acknowledged is lost over ${KILLS} kills, and the directory is free each time`, async () => {
  const dataDir = await mkdtemp(join(tmpdir(), 'faas-ledger-kill-'))
  const inserted = new Set<string>()
  const ended = new Set<string>()
  try {
    for (let round = 0; round < KILLS; round++) {
      for (const line of await writeUntilKilled(dataDir, round * 1_000_000, 3 + round * 97)) {
        const [what, id = ''] = line.split(' ')
        if (what === 'inserted') inserted.add(id)
        if (what === 'ended') ended.add(id)
      }
      const ledger = await openLedger({ dataDir, log: silentLog })
      for (const id of inserted) {
        const stored = await ledger.getExecution(asId<ExecutionId>(id))
        expect(stored?.id, `${id} was acknowledged`).toBe(id)
        if (ended.has(id)) expect(stored?.state, `the end of ${id} was acknowledged`).toBe('succeeded')
      }
      await ledger[Symbol.asyncDispose]()
    }
    expect(inserted.size).toBeGreaterThan(KILLS * 10)
  } finally {
    await rm(dataDir, { recursive: true, force: true })
  }
}, 180_000)
