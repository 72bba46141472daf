/** An executor over every usable runtime, in a data directory of its own, as the gateway opens it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { openPlatform } from '../../apps/gateway/dist/main.js'
import { loadConfig } from '../../packages/config/dist/index.js'
import { silentLog } from '../../packages/core/dist/index.js'
import { helloRequest } from './subjects.mjs'

/** @param {{ pool: boolean }} options `pool: false`: every sandbox is made on request */
export async function openExecutors({ pool }) {
  const dataDir = await mkdtemp(path.join(tmpdir(), 'faas-bench-'))
  const { config } = loadConfig([], {
    ...process.env, FAAS_DATA_DIR: dataDir, FAAS_STAND_INS: 'never', FAAS_MAX_PER_PRINCIPAL: '64', FAAS_PREWARM: '0', ...(pool ? {} : { FAAS_DISABLE_PREWARM: '1' }),
  })
  const problems = { ...silentLog, warn: report, error: report }
  const platform = await openPlatform(config, problems)
  const { executor } = platform
  const usable = executor.runtimes().filter(({ probe }) => probe.usable)
  return {
    executor,
    ledger: platform.ledger,
    runtimes: usable.map(({ name }) => name),
    versions: Object.fromEntries(usable.map(({ name, probe }) => [name, probe.version])),
    async prewarm(runtime, count) {
      const { image, limits, network, isolationFloor } = helloRequest(runtime)
      const report = await executor.prewarm({ image, runtime, limits, network, isolationFloor }, count, { signal: AbortSignal.timeout(120_000) })
      if (report.ready < count) throw new Error(`${runtime}: ${report.ready} of ${count} sandboxes became ready: ${report.limitedBy}`)
    },
    async close() {
      await platform[Symbol.asyncDispose]()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

function report(fields, message) {
  process.stderr.write(`${message} ${JSON.stringify(fields, (_key, value) => (value instanceof Error ? value.message : value))}\n`)
}
