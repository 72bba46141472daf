/** Writes without end and says what was acknowledged, until it is killed. Arguments: data directory, first number. */
import { writeSync } from 'node:fs'
import { silentLog } from '@faas-platform/core'
import { openLedger } from '../src/open-ledger.js'
import { ended, record } from './records.js'

const [dataDir = '', firstText = '0'] = process.argv.slice(2)
const ledger = await openLedger({ dataDir, log: silentLog })
writeSync(1, 'ready\n')
for (let n = Number(firstText); ; n += 4) {
  await Promise.all([0, 1, 2, 3].map(async (offset) => {
    const id = `e${n + offset}`
    await ledger.insertExecution(record(id), { durable: offset === 0 })
    writeSync(1, `inserted ${id}\n`)
    const updated = await ledger.updateExecution(ended(record(id), 1), 0, { durable: offset === 1 })
    if (updated) writeSync(1, `ended ${id}\n`)
  }))
}
