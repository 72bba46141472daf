/**
 * Submits asynchronous executions and reports what is acknowledged and what results are seen, until it is killed,
 * or until all of them have ended. Arguments: data directory, how many to submit in this life, first number.
 * Every run of a command prints a stamp of its own, so that two runs can be told apart by their results.
 */
import { writeSync } from 'node:fs'
import { randomUUID } from 'node:crypto'
import { asId, silentLog, type ExecutionId } from '@faas-platform/core'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { MemoryDriver } from '@faas-platform/testkit'
import { ALICE, makeExecutor, request, textOf } from './rig.js'

const [dataDir = '', countText = '0', firstText = '0'] = process.argv.slice(2)
const say = (line: string): void => void writeSync(1, `${line}\n`)

const driver = new MemoryDriver({
  programs: {
    stamp: async (proc) => {
      await proc.write(1, new TextEncoder().encode(randomUUID()))
      return 0
    },
  },
})
const ledger = await openLedger({ dataDir, log: silentLog })
const executor = makeExecutor({ drivers: [driver], ledger, logStore: new FsLogStore({ dir: `${dataDir}/logs` }), config: { asyncConcurrencyMax: 4, asyncAttemptsMax: 1_000 } })
const report = await executor.start()
say(`started requeued=${report.requeued} interrupted=${report.interrupted}`)

const signal = new AbortController().signal
async function follow(id: ExecutionId): Promise<void> {
  const result = await executor.wait(id, ALICE, signal)
  say(`result ${id} ${result.outcome} ${textOf(result.stdout.bytes)}`)
}

const seen: Promise<void>[] = []
for (let page = await executor.list({ limit: 1000 }, ALICE); ; page = await executor.list({ limit: 1000, cursor: page.nextCursor ?? '' }, ALICE)) {
  seen.push(...page.executions.map((entry) => follow(entry.id)))
  if (page.nextCursor === null) break
}
const first = Number(firstText)
await Promise.all(Array.from({ length: Number(countText) }, async (_, index) => {
  const id = asId<ExecutionId>(`job-${first + index}`)
  const rerunnable = index % 3 !== 0
  const view = await executor.submit(request('sleep 0.02; stamp', { rerunnable }), { principal: ALICE, id, idempotencyKey: id })
  say(`accepted ${view.id} ${rerunnable ? 'rerunnable' : 'once'}`)
  seen.push(follow(id))
}))
await Promise.all(seen)
await executor.drain(10_000)
await ledger[Symbol.asyncDispose]()
say('all done')
