import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseConfig } from '@faas-platform/config'
import type { Ledger } from '@faas-platform/core'
import { isFaasError, silentLog, systemClock, systemIds } from '@faas-platform/core'
import { Executor } from '@faas-platform/executor'
import { FsLogStore, openLedger } from '@faas-platform/ledger-sqlite'
import { eventually, MemoryDriver, within } from '@faas-platform/testkit'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { createKey } from './access/keys.js'
import { executorConfig } from './executor-config.js'
import { serve, StopSignals } from './serve.js'

interface Served extends AsyncDisposable {
  readonly url: Promise<string>
  readonly done: Promise<void>
  readonly stop: StopSignals
  readonly driver: MemoryDriver
  readonly ledger: Ledger
  readonly dataDir: string
}

async function start(env: Readonly<Record<string, string>> = {}, prepare: (ledger: Ledger) => Promise<void> = async () => undefined): Promise<Served> {
  const dataDir = await mkdtemp(join(tmpdir(), 'faas-serve-test-'))
  const host = { isRoot: true, homeDir: '/', cpuCount: 2, totalMemoryBytes: 2 ** 32, xdgDataHome: undefined }
  const { config } = parseConfig({ argv: [], env: { FAAS_DATA_DIR: dataDir, FAAS_PORT: '0', FAAS_PREWARM: '1', ...env }, host, readFile: () => '' })
  const driver = new MemoryDriver()
  const ledger = await openLedger({ dataDir, log: silentLog })
  await prepare(ledger)
  const executor = new Executor({
    drivers: [driver], ledger, logStore: new FsLogStore({ dir: join(dataDir, 'logs') }), clock: systemClock, ids: systemIds, log: silentLog,
    config: { ...executorConfig(config, { cores: 2, memoryBytes: 2 ** 32 }), runtimePreference: ['memory'] },
  })
  await executor.start()
  const stop = new StopSignals()
  let listening: (url: string) => void = () => undefined
  const url = new Promise<string>((resolve) => (listening = resolve))
  const done = serve({ executor, ledger, config, clock: systemClock, ids: systemIds, log: pino({ level: 'silent' }), imageStores: new Map(), version: 'test', stop, onListening: listening })
  done.catch(() => undefined) // awaited by each test; this keeps an early failure from counting as unhandled
  return {
    url, done, stop, driver, ledger, dataDir,
    async [Symbol.asyncDispose]() {
      stop.ask()
      stop.ask()
      await done.catch(() => undefined)
      await executor.drain(0)
      await ledger[Symbol.asyncDispose]()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}

function run(url: string, command: string): Promise<Response> {
  return fetch(`${url}/api/v1/execute`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ command }) })
}

describe('a served gateway', () => {
  it('prewarms the default image without making requests wait', async () => {
    await using served = await start()
    const url = await served.url
    await eventually(async () => ((await (await fetch(`${url}/api/v1/pools`)).json()) as string[]).includes('faas/base:latest'))
  })

  it('lets running work end after the first signal, refuses new work, and ends', async () => {
    await using served = await start()
    const url = await served.url
    const running = run(url, 'sleep 0.4; echo finished')
    await eventually(() => served.driver.live().processes > 0)
    served.stop.ask()
    await eventually(async () => (await fetch(`${url}/health`)).status === 503)
    expect((await run(url, 'true')).status).toBe(503)
    expect(((await (await running).json()) as { stdout: string }).stdout).toBe('finished\n')
    await within(5000, 'the end of serving', served.done)
    expect(served.driver.live()).toMatchObject({ sandboxes: 0, processes: 0 })
    await expect(fetch(`${url}/health`)).rejects.toThrow()
  })

  it('ends running work when its time to drain is over', async () => {
    await using served = await start({ FAAS_DRAIN_MS: '100' })
    const running = run(await served.url, 'sleep 60')
    await eventually(() => served.driver.live().processes > 0)
    served.stop.ask()
    expect((await within(5000, 'the answer', running)).status).toBeGreaterThanOrEqual(499)
    await within(5000, 'the end of serving', served.done)
    expect(served.driver.live().sandboxes).toBe(0)
  })

  it('ends running work at once after the second signal', async () => {
    await using served = await start()
    const running = run(await served.url, 'sleep 60')
    await eventually(() => served.driver.live().processes > 0)
    served.stop.ask()
    served.stop.ask()
    expect((await within(5000, 'the answer', running)).status).toBe(499)
    await within(5000, 'the end of serving', served.done)
    expect(served.driver.live().sandboxes).toBe(0)
  })

  it('refuses to start off loopback while there is no key, and says how to make one', async () => {
    await using served = await start({ FAAS_HOST: '0.0.0.0' })
    const failure: unknown = await served.done.then(() => null, (error: unknown) => error)
    expect(isFaasError(failure, 'config/invalid') && failure.hint).toContain(`faas keys create --name first --data-dir ${served.dataDir}`)
  })

  it('starts off loopback with a key, or when told to do without', async () => {
    await using keyed = await start({ FAAS_HOST: '0.0.0.0' }, async (ledger) => void (await createKey(ledger, { name: 'a', scopes: ['execute'] }, { clock: systemClock, ids: systemIds })))
    expect((await run((await keyed.url).replace('0.0.0.0', '127.0.0.1'), 'true')).status).toBe(401)
    await using open = await start({ FAAS_HOST: '0.0.0.0', FAAS_REQUIRE_KEYS: 'false' })
    expect((await run((await open.url).replace('0.0.0.0', '127.0.0.1'), 'true')).status).toBe(200)
  })

  it('says which port is taken', async () => {
    const other = createServer()
    const port = await new Promise<number>((resolve) => other.listen(0, '127.0.0.1', () => resolve((other.address() as { port: number }).port)))
    try {
      await using served = await start({ FAAS_PORT: String(port) })
      await expect(served.done).rejects.toMatchObject({ code: 'config/invalid', message: expect.stringContaining(`port ${port}`), hint: expect.stringContaining('FAAS_PORT') })
    } finally {
      other.close()
    }
  })

  it('closes its ledger to other users', async () => {
    await using served = await start()
    await served.url
    expect((await stat(join(served.dataDir, 'ledger.sqlite'))).mode & 0o077).toBe(0)
    await writeFile(join(served.dataDir, 'probe'), '') // the directory itself stays usable
  })
})
