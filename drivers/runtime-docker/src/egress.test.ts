/**
 * Egress on the real engine and the real kernel: a network namespace plays the internet and a private network, so that
 * what is forwarded is seen to be forwarded, and what is blocked to be blocked for its address and nothing else.
 */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { isFaasError, type NetworkPolicy, type Sandbox } from '@faas-platform/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { realDriver, sh, type RealDriver } from './testing/real-driver.js'

const run = promisify(execFile)
const BIN = fileURLToPath(new URL('../../../.tools/bin', import.meta.url))
const ip = (...args: string[]): Promise<unknown> => run(`${BIN}/ip`, args)
const nft = async (...args: string[]): Promise<string> => (await run(`${BIN}/nft`, args)).stdout
const signal = AbortSignal.timeout(300_000)
const EGRESS: NetworkPolicy = { mode: 'egress', allowCidrs: [] }

/** Public to the rules, and unlikely to be anybody's here; and one from a private range. */
const PUBLIC = '11.22.33.44'
const PRIVATE = '10.211.33.44'
const TAG = process.pid.toString(36).slice(-5)
const NETNS = `faas-dkt-${TAG}`
const LINK = `fdk${TAG}`

let real: RealDriver
let server: ReturnType<typeof execFile>

beforeAll(async () => {
  real = await realDriver({ nftPath: `${BIN}/nft` })
  await ip('netns', 'add', NETNS)
  await ip('link', 'add', LINK, 'type', 'veth', 'peer', 'name', 'out0', 'netns', NETNS)
  await ip('addr', 'add', '11.22.33.1/24', 'dev', LINK)
  await ip('link', 'set', LINK, 'up')
  await ip('route', 'add', `${PRIVATE}/32`, 'dev', LINK)
  for (const command of [['addr', 'add', `${PUBLIC}/24`, 'dev', 'out0'], ['addr', 'add', `${PRIVATE}/32`, 'dev', 'out0'], ['link', 'set', 'out0', 'up'], ['link', 'set', 'lo', 'up']]) {
    await ip('-n', NETNS, ...command)
  }
  server = execFile(`${BIN}/ip`, ['netns', 'exec', NETNS, `${BIN}/busybox`, 'httpd', '-f', '-p', '80', '-h', BIN])
})

afterAll(async () => {
  server.kill('SIGKILL')
  await ip('netns', 'del', NETNS)
  await real[Symbol.asyncDispose]()
})

/** `200`: answered by httpd; `blocked`: nothing came back. */
async function reach(sandbox: Sandbox, address: string): Promise<string> {
  const { stdout } = await sh(sandbox, `printf 'HEAD / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 ${address} 80 | head -1 | grep -q HTTP && echo reached || echo blocked`)
  return stdout.trim()
}

describe('a sandbox with egress', () => {
  test('reaches the internet, and a private network only when that is allowed by name', async () => {
    await using closed = await real.driver.create(real.spec({ network: EGRESS }), { signal })
    expect(Object.keys(closed.timeBudget)).toContain('network')
    expect(await reach(closed, PUBLIC)).toBe('reached')
    expect(await reach(closed, PRIVATE)).toBe('blocked')
    await using opened = await real.driver.create(real.spec({ network: { mode: 'egress', allowCidrs: ['10.211.0.0/16', '10.211.33.0/24'] } }), { signal })
    expect(await reach(opened, PRIVATE)).toBe('reached')
    expect(await reach(closed, PRIVATE)).toBe('blocked')
  })

  test('hands nothing it was allowed to the next one that gets its address', async () => {
    const opened = await real.driver.create(real.spec({ network: { mode: 'egress', allowCidrs: ['10.211.0.0/16'] } }), { signal })
    const table = `faas_docker_${real.options.dataDirId}`
    expect(await nft('list', 'set', 'inet', table, 'allowed')).toContain('10.211.0.0/16')
    await opened[Symbol.asyncDispose]()
    expect(await nft('list', 'set', 'inet', table, 'allowed')).not.toContain('10.211.0.0/16')
  })

  test('is not made without its rules: flushed ones are put back first, what was allowed too', async () => {
    await using opened = await real.driver.create(real.spec({ network: { mode: 'egress', allowCidrs: ['10.211.0.0/16'] } }), { signal })
    await nft('delete', 'table', 'inet', `faas_docker_${real.options.dataDirId}`)
    await using closed = await real.driver.create(real.spec({ network: EGRESS }), { signal })
    expect(await reach(closed, PRIVATE)).toBe('blocked')
    expect(await reach(opened, PRIVATE)).toBe('reached')
  })

  test('has no IPv6', async () => {
    await using sandbox = await real.driver.create(real.spec({ network: EGRESS }), { signal })
    expect((await sh(sandbox, 'cat /proc/net/if_inet6 | grep -v lo; true')).stdout).toBe('')
  })

  test('is refused for a malformed range, and leaves nothing', async () => {
    const spec = real.spec({ network: { mode: 'egress', allowCidrs: ['example.com'] } })
    const error = await real.driver.create(spec, { signal }).catch((thrown: unknown) => thrown)
    expect(isFaasError(error, 'request/invalid')).toBe(true)
    expect(await real.driver.list(signal)).not.toContain(spec.id)
  })

  test('is refused when the rules can not be set', async () => {
    await using other = await realDriver({ nftPath: '/nonexistent/nft' })
    const error = await other.driver.create(other.spec({ network: EGRESS }), { signal }).catch((thrown: unknown) => thrown)
    expect(isFaasError(error, 'network/unavailable')).toBe(true)
  })
})

test('network and rules are gone with the driver', async () => {
  const other = await realDriver({ nftPath: `${BIN}/nft` })
  const sandbox = await other.driver.create(other.spec({ network: EGRESS }), { signal })
  await sandbox[Symbol.asyncDispose]()
  await other[Symbol.asyncDispose]()
  expect(await nft('list', 'tables')).not.toContain(other.options.dataDirId)
})
