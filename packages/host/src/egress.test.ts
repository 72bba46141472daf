/** Who can reach whom, with real listeners: a small world of namespaces stands around the sandboxes' networks. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { networkInterfaces } from 'node:os'
import { join } from 'node:path'
import { silentLog } from '@faas-platform/core'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { EgressNetworks, type EgressNetwork } from './egress.js'
import type { HostKit } from './hostkit.js'
import { newHostKit, toolsDir } from './testing.js'

/** Eight digits as `dataDirId` makes them, of this process only. */
const OWNER = process.pid.toString(16).padStart(6, 'e').slice(0, 6) + 'ab'
const TABLE = `faas-${OWNER}`
const LINKS = `f${OWNER.slice(0, 6)}-`
const WORLD = `faas-world-${OWNER}`
const PORT = 18_080
const busybox = join(toolsDir, 'busybox')
const nftPath = join(toolsDir, 'nft')
const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' })
const nft = (...args: string[]): string => execFileSync(nftPath, args, { encoding: 'utf8' })

/** Addresses in the world: public ones, and ones that a cloud or a company network has. */
const PUBLIC = '11.22.33.44'
const PRIVATE = ['10.254.254.1', '172.20.0.9', '192.168.77.7', '100.64.9.9', '169.254.169.254']

describe('the outbound network of a sandbox', () => {
  let hostkit: HostKit
  let egress: EgressNetworks
  let network: EgressNetwork
  let other: EgressNetwork
  const servers: ChildProcess[] = []

  const fdOf = (one: EgressNetwork): string => one.netnsPath.split('/').at(-1) ?? ''
  const inside = async (one: EgressNetwork, ...argv: string[]): Promise<{ code: number | null; stdout: string }> =>
    JSON.parse(await hostkit.call('run', `argv=${[busybox, ...argv].join('\0')}`, `netns=${fdOf(one)}`, 'timeout=10000')) as never
  const reaches = async (one: EgressNetwork, address: string, port = PORT): Promise<string> =>
    (await inside(one, 'timeout', '3', busybox, 'nc', '-w', '2', address, String(port))).stdout.trim() === 'reached' ? 'reached' : 'blocked'

  const serve = (prefix: readonly string[], ...extra: string[]): void => {
    servers.push(spawn(prefix[0] ?? busybox, [...prefix.slice(1), ...(prefix.length === 0 ? [] : [busybox]), 'nc', '-ll', '-p', String(PORT), ...extra, '-e', '/bin/echo', 'reached'], { stdio: 'ignore' }))
  }

  beforeAll(async () => {
    hostkit = newHostKit()
    ip('netns', 'add', WORLD)
    ip('link', 'add', `w${OWNER}`, 'type', 'veth', 'peer', 'name', 'world0', 'netns', WORLD)
    ip('addr', 'add', '11.22.33.1/24', 'dev', `w${OWNER}`)
    ip('link', 'set', `w${OWNER}`, 'up')
    ip('-n', WORLD, 'link', 'set', 'lo', 'up')
    ip('-n', WORLD, 'addr', 'add', `${PUBLIC}/24`, 'dev', 'world0')
    ip('-n', WORLD, 'link', 'set', 'world0', 'up')
    ip('-n', WORLD, 'route', 'add', 'default', 'via', '11.22.33.1')
    // The way back in: on a real host the uplink, whose forwarding the network switches on by itself.
    await hostkit.call('control', `/proc/sys/net/ipv4/conf/w${OWNER}/forwarding`, '1')
    for (const address of PRIVATE) {
      ip('-n', WORLD, 'addr', 'add', `${address}/32`, 'dev', 'lo')
      ip('route', 'add', `${address}/32`, 'via', PUBLIC)
    }
    serve(['ip', 'netns', 'exec', WORLD])
    serve([])
    egress = new EgressNetworks({ ownerId: OWNER, hostkit, nftPath, log: silentLog, dnsServers: ['10.254.254.1'] })
    network = await egress.acquire([])
    other = await egress.acquire([])
    // The servers are up when the host itself, which nothing restricts, reaches them.
    for (const address of [PUBLIC, ...PRIVATE, '127.0.0.1']) {
      await eventually(() => execFileSync(busybox, ['nc', '-w', '1', address, String(PORT)], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim() === 'reached', { deadlineMs: 5_000, what: address })
    }
  }, 60_000)

  afterAll(async () => {
    for (const server of servers) server.kill('SIGKILL')
    await egress[Symbol.asyncDispose]()
    await hostkit[Symbol.asyncDispose]()
    ip('link', 'del', `w${OWNER}`)
    ip('netns', 'del', WORLD)
  })

  it('reaches a public address', async () => {
    expect(await reaches(network, PUBLIC)).toBe('reached')
  })

  it.each(PRIVATE)('does not reach %s, private or metadata, although the host does', async (address) => {
    expect(await reaches(network, address)).toBe('blocked')
  })

  it('reaches no address of the host: of its uplink, of the cable, loopback', async () => {
    const own = Object.values(networkInterfaces()).flatMap((list) => list ?? []).filter(({ family }) => family === 'IPv4').map(({ address }) => address)
    const gateway = /default via ([0-9.]+)/.exec((await inside(network, 'ip', 'route')).stdout)?.[1] ?? ''
    expect(gateway).not.toBe('')
    for (const address of [...own, gateway, '11.22.33.1', '127.0.0.1', '0.0.0.0']) expect([address, await reaches(network, address)]).toEqual([address, 'blocked'])
  })

  it('reaches no other sandbox, and nothing outside reaches it', async () => {
    const listening = hostkit.call('run', `argv=${[busybox, 'timeout', '8', busybox, 'nc', '-ll', '-p', String(PORT), '-e', '/bin/echo', 'reached'].join('\0')}`, `netns=${fdOf(other)}`, 'timeout=9000')
    await eventually(async () => (await inside(other, 'nc', '-w', '1', other.address, String(PORT))).stdout.trim() === 'reached', { deadlineMs: 5_000, what: 'the listener' })
    expect(await reaches(network, other.address)).toBe('blocked')
    const fromWorld = execFileSync('ip', ['netns', 'exec', WORLD, busybox, 'timeout', '2', busybox, 'sh', '-c', `nc -w 1 ${other.address} ${PORT}; true`], { encoding: 'utf8' })
    expect(fromWorld).not.toContain('reached')
    await listening
  }, 30_000)

  it('reaches what is allowed by name, only while it lives, and only that sandbox does', async () => {
    const allowed = await egress.acquire(['192.168.77.0/24', '169.254.169.254'])
    expect(await reaches(allowed, '192.168.77.7')).toBe('reached')
    expect(await reaches(allowed, '169.254.169.254')).toBe('reached')
    expect(await reaches(allowed, '172.20.0.9')).toBe('blocked')
    expect(await reaches(network, '192.168.77.7')).toBe('blocked')
    await allowed.release()
    expect(await reaches(allowed, '192.168.77.7')).toBe('blocked')
    await allowed.closeHandle()
  })

  it('asks the resolver on port 53 although it is private, and nothing else of it', async () => {
    servers.push(spawn('ip', ['netns', 'exec', WORLD, busybox, 'nc', '-ll', '-p', '53', '-e', '/bin/echo', 'reached'], { stdio: 'ignore' }))
    await eventually(async () => (await reaches(network, '10.254.254.1', 53)) === 'reached', { deadlineMs: 10_000, what: 'the resolver' })
    expect(await reaches(network, '10.254.254.1')).toBe('blocked')
    expect(network.resolvConf).toBe('nameserver 10.254.254.1\n')
  }, 30_000)

  it('has no IPv6', async () => {
    expect((await inside(network, 'ip', '-6', 'addr', 'show', 'dev', 'eth0')).stdout.trim()).toBe('')
  })

  it('refuses text that is not a network before it gets near the rules', async () => {
    await expect(egress.acquire(['10.0.0.0/8 } ; flush ruleset'])).rejects.toMatchObject({ code: 'request/invalid' })
  })

  it('a cable goes when the namespace has no user left', async () => {
    const before = readdirSync('/sys/class/net').filter((name) => name.startsWith(LINKS))
    const short = await egress.acquire([])
    const link = readdirSync('/sys/class/net').filter((name) => name.startsWith(LINKS) && !before.includes(name))
    await short.closeHandle()
    await short.release()
    await eventually(() => readdirSync('/sys/class/net').filter((name) => name.startsWith(LINKS)).length <= before.length, { deadlineMs: 10_000, what: `${link.join()} to go` })
  })

  it('what a killed owner leaves is taken away by its successor', async () => {
    const ownerId = `${OWNER.slice(0, 5)}7cd`
    const links = (): string[] => readdirSync('/sys/class/net').filter((name) => name.startsWith(`f${ownerId.slice(0, 6)}-`))
    const doomed = newHostKit()
    const killed = new EgressNetworks({ ownerId, hostkit: doomed, nftPath, log: silentLog })
    await killed.acquire(['192.168.77.0/24'])
    expect(links().length).toBeGreaterThan(0)
    process.kill(doomed.pid, 'SIGKILL')
    const successor = new EgressNetworks({ ownerId, hostkit, nftPath, log: silentLog })
    await successor.reclaim()
    await eventually(() => links().length === 0, { deadlineMs: 10_000, what: 'the cables to go' })
    expect(nft('list', 'tables')).not.toContain(`faas-${ownerId}`)
    expect(await successor.reclaim()).toBe(0)
    await doomed[Symbol.asyncDispose]()
  })
})
