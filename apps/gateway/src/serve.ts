/**
 * Serves a gateway until it is told to stop.
 *
 * I1. The first signal drains: new work is refused, running work may end in `drainMs`, the rest is ended.
 * I2. The second signal ends running work at once; what was started is freed in both cases.
 */
import { chmod } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Config } from '@faas-platform/config'
import type { Clock, Ids, ImageStore, Ledger } from '@faas-platform/core'
import { FaasError } from '@faas-platform/core'
import type { Executor } from '@faas-platform/executor'
import type { FastifyBaseLogger } from 'fastify'
import type { Gateway } from './build-gateway.js'
import { buildGateway } from './build-gateway.js'
import { wirePolicy } from './context.js'

export interface ServeOptions {
  readonly executor: Executor
  readonly ledger: Ledger
  readonly config: Config
  readonly clock: Clock
  readonly ids: Ids
  readonly log: FastifyBaseLogger
  readonly imageStores: ReadonlyMap<string, ImageStore>
  readonly version: string
  /** Called with the URL once requests are answered. */
  readonly onListening: (url: string) => void
  /** Asks for the drain by its first event, for haste by its second. */
  readonly stop: StopSignals
}

/** The two requests to stop. */
export class StopSignals {
  readonly drain = new AbortController()
  readonly now = new AbortController()

  ask(): void {
    if (this.drain.signal.aborted) this.now.abort()
    else this.drain.abort()
  }
}

/** @throws FaasError `config/invalid` when the address demands keys and there is none, or can not be listened on */
export async function serve(options: ServeOptions): Promise<void> {
  const { executor, config, log, stop } = options
  await protectLedger(config.dataDir, log)
  const gateway = await buildGateway(options)
  try {
    await demandKey(gateway, options)
    const url = await listen(gateway, config)
    options.onListening(url)
    const warming = prewarm(options)
    await aborted(stop.drain.signal)
    gateway.startDraining()
    log.info({ drainMs: config.drainMs }, 'draining')
    stop.now.signal.addEventListener('abort', () => void cancelEverything(executor, log), { once: true })
    await executor.drain(stop.now.signal.aborted ? 0 : config.drainMs)
    await warming
  } finally {
    await gateway.app.close()
  }
}

/** Its records hold environments of executions: for the owner's eyes only, whatever the directory allows. */
async function protectLedger(dataDir: string, log: FastifyBaseLogger): Promise<void> {
  for (const name of ['ledger.sqlite', 'ledger.sqlite-wal', 'ledger.sqlite-shm']) {
    try {
      await chmod(join(dataDir, name), 0o600)
    } catch (error) {
      const missing = error instanceof Error && 'code' in error && error.code === 'ENOENT'
      if (!missing) log.warn({ err: error, file: name }, 'the ledger could not be closed to other users')
    }
  }
}

async function demandKey(gateway: Gateway, { ledger, config, clock, log }: ServeOptions): Promise<void> {
  if (!gateway.keysDemanded) {
    if (config.requireKeys === false) log.warn({ host: config.host }, 'no API key is demanded: everybody who reaches this address can run code')
    return
  }
  const now = clock.nowMs()
  const usable = (await ledger.listKeys()).some((key) => key.revokedAtMs === null && (key.expiresAtMs === null || key.expiresAtMs > now))
  if (usable) return
  throw new FaasError('config/invalid', {
    message: `On ${config.host} the gateway demands API keys, and there is none yet.`,
    hint: `Make one: faas keys create --name first --data-dir ${config.dataDir}. Or listen on 127.0.0.1.`,
  })
}

async function listen({ app }: Gateway, config: Config): Promise<string> {
  try {
    await app.listen({ host: config.host, port: config.port })
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : ''
    throw new FaasError('config/invalid', {
      message: `${config.host} port ${config.port} can not be listened on${code === '' ? '' : ` (${code})`}.`,
      hint: code === 'EADDRINUSE' ? 'Another process has the port: choose one with FAAS_PORT.' : 'Check FAAS_HOST and FAAS_PORT.',
      cause,
    })
  }
  const address = app.server.address() as AddressInfo
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address
  return `http://${host}:${address.port}`
}

/** Sandboxes of the default image, ready before the first request asks. Requests do not wait for it. */
async function prewarm({ executor, config, log, stop }: ServeOptions): Promise<void> {
  if (config.disablePrewarm || config.prewarmCount === 0) return
  const policy = wirePolicy(config)
  try {
    const report = await executor.prewarm(
      { image: policy.image, runtime: policy.runtime, isolationFloor: 'none', limits: policy.limits, network: { mode: policy.network, allowCidrs: [] } },
      config.prewarmCount,
      { signal: stop.drain.signal },
    )
    log.info({ runtime: report.runtime, ready: report.ready, wanted: report.wanted, limitedBy: report.limitedBy }, 'prewarmed')
  } catch (error) {
    if (!stop.drain.signal.aborted) log.warn({ err: error }, 'nothing was prewarmed')
  }
}

// I2
async function cancelEverything(executor: Executor, log: FastifyBaseLogger): Promise<void> {
  const page = await executor.list({ states: ['queued', 'starting', 'running'], limit: 1000 }, null)
  const results = await Promise.allSettled(page.executions.map((execution) => executor.cancel(execution.id, null)))
  log.warn({ cancelled: results.filter((result) => result.status === 'fulfilled').length }, 'running executions were ended')
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
