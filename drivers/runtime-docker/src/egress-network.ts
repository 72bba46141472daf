/**
 * Network policy `egress`: one bridge per data directory, with the host's own rules on it.
 *
 * The engine's rules are not relied upon: they can be switched off, and they do not block the host or private ranges.
 *
 * I1. A sandbox gets the network only while our rules are seen to be in the kernel; else the creation fails.
 * I2. Ports of the bridge are isolated from each other, so sandboxes do not see each other on the link either.
 * I3. What a sandbox may reach beyond the rest is taken away before its address can become somebody else's.
 */
import { execFile } from 'node:child_process'
import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { FaasError, type LogSink } from '@faas-platform/core'
import { LABEL_DATA_DIR } from './container-config.js'
import { allowRule, egressRuleset } from './egress-rules.js'
import { segment, type EngineClient } from './engine-client.js'
import { isEngineStatus, toDriverError } from './engine-error.js'
import { list, shape, sub, text, optionalText, type Shape } from './engine-shape.js'

const NFT_DEADLINE_MS = 10_000
/** Interface names end at 15 characters. */
const DATA_DIR_ID_LENGTH_MAX = 10

export interface EgressNetworkOptions {
  readonly client: EngineClient
  readonly dataDirId: string
  /** The `nft` program. */
  readonly nftPath: string
  readonly log: LogSink
}

interface Ready {
  readonly subnet: string
  readonly nameservers: readonly string[]
}

export class EgressNetwork {
  readonly name: string
  readonly #options: EgressNetworkOptions
  readonly #bridge: string
  readonly #table: string
  readonly #allowed = new Map<string, readonly string[]>()
  #ready: Promise<Ready> | undefined
  /** Changes to the rules, one after the other. */
  #turn: Promise<unknown> = Promise.resolve()

  constructor(options: EgressNetworkOptions) {
    this.#options = options
    const id = options.dataDirId.slice(0, DATA_DIR_ID_LENGTH_MAX)
    this.name = `faas-${options.dataDirId}-egress`
    this.#bridge = `faas-${id}`
    this.#table = `faas_docker_${options.dataDirId.replace(/[^A-Za-z0-9_]/g, '_')}`
  }

  /** Makes the network and its rules where they are missing. @throws FaasError `network/unavailable` */
  async ensure(): Promise<void> {
    this.#ready ??= this.#make().catch((error: unknown) => {
      this.#ready = undefined
      throw error
    })
    const ready = await this.#ready
    if (!(await this.#inPlace())) await this.#inTurn(() => this.#apply(ready)) // I1: flushed by somebody else
  }

  /** Lets a started container's address out. Call it before any command runs in it. */
  async admit(container: Shape, cidrs: readonly string[]): Promise<string> {
    const address = text(sub(sub(sub(container, 'NetworkSettings'), 'Networks'), this.name), 'IPAddress')
    if (!isIPv4(address)) throw new FaasError('network/unavailable', { message: 'The Docker Engine gave the sandbox no address.' })
    await this.#isolatePorts()
    if (cidrs.length > 0) {
      await this.#inTurn(async () => {
        await this.#nft(allowRule('add', this.#table, address, cidrs))
        this.#allowed.set(address, cidrs)
      })
    }
    return address
  }

  /** I3 */
  async release(address: string): Promise<void> {
    const cidrs = this.#allowed.get(address)
    if (cidrs === undefined) return
    await this.#inTurn(async () => {
      if (await this.#inPlace()) await this.#nft(allowRule('delete', this.#table, address, cidrs))
      this.#allowed.delete(address)
    })
  }

  /** Takes network and rules away, unless a container still uses them: then both stay. */
  async remove(): Promise<void> {
    const { client, log } = this.#options
    try {
      await client.json({ method: 'DELETE', path: `/networks/${segment(this.name)}` })
    } catch (error) {
      if (isEngineStatus(error, 403)) return // in use
      if (!isEngineStatus(error, 404)) throw toDriverError(error, 'runtime/unavailable', 'The Docker Engine could not remove a network.')
    }
    this.#ready = undefined
    try {
      if (await this.#inPlace()) await this.#nft(`table inet ${this.#table}\ndelete table inet ${this.#table}\n`)
    } catch (error) {
      log.warn({ error }, 'firewall rules of a network that is gone could not be removed; they match nothing any more')
    }
  }

  async #make(): Promise<Ready> {
    try {
      if ((await readFile('/proc/sys/net/ipv4/ip_forward', 'utf8')).trim() !== '1') {
        throw unavailable('This host does not forward packets.', 'Set net.ipv4.ip_forward to 1, or let the Docker Engine do it (option ip-forward).')
      }
      const network = await this.#network()
      const subnet = list(sub(network, 'IPAM'), 'Config').map((entry) => optionalText(shape(entry, 'IPAM'), 'Subnet')).find((entry) => entry !== undefined && !entry.includes(':'))
      if (subnet === undefined) throw unavailable('The Docker Engine gave the network no IPv4 range.')
      await stat(`/sys/class/net/${this.#bridge}`).catch((error: unknown) => {
        throw unavailable('The Docker Engine keeps its networks out of reach of this process.', 'Egress needs an engine on this very host, run by root.', error)
      })
      const ready = { subnet, nameservers: await nameservers() }
      await this.#inTurn(() => this.#apply(ready))
      return ready
    } catch (error) {
      throw toDriverError(error, 'network/unavailable', 'The Docker Engine could not make the network.')
    }
  }

  async #network(): Promise<Shape> {
    const { client, dataDirId } = this.#options
    const inspect = async (): Promise<Shape> => shape(await client.json({ path: `/networks/${segment(this.name)}` }), 'network')
    try {
      return await inspect()
    } catch (error) {
      if (!isEngineStatus(error, 404)) throw error
    }
    await client.json({
      method: 'POST', path: '/networks/create',
      json: {
        Name: this.name, Driver: 'bridge', CheckDuplicate: true, EnableIPv6: false, Internal: false, Labels: { [LABEL_DATA_DIR]: dataDirId },
        Options: { 'com.docker.network.bridge.name': this.#bridge, 'com.docker.network.bridge.enable_icc': 'false', 'com.docker.network.bridge.enable_ip_masquerade': 'true' },
      },
    })
    return await inspect()
  }

  /** I2 */
  async #isolatePorts(): Promise<void> {
    const ports = `/sys/class/net/${this.#bridge}/brif`
    try {
      for (const port of await readdir(ports)) {
        await writeFile(`${ports}/${port}/isolated`, '1').catch((error: NodeJS.ErrnoException) => {
          if (error.code !== 'ENOENT') throw error // another sandbox's port, gone meanwhile
        })
      }
    } catch (error) {
      throw unavailable('Sandboxes can not be kept apart on the bridge.', 'It needs root, and Linux 4.18 or newer.', error)
    }
  }

  async #apply(ready: Ready): Promise<void> {
    await this.#nft(egressRuleset({ table: this.#table, bridge: this.#bridge, ...ready, allowed: this.#allowed }))
  }

  async #inPlace(): Promise<boolean> {
    try {
      await run(this.#options.nftPath, ['list', 'chain', 'inet', this.#table, 'forward'], '')
      return true
    } catch (error) {
      if (error instanceof Error && /No such file or directory/.test(error.message) && !('code' in error && error.code === 'ENOENT')) return false
      throw unavailable('The firewall rules of the host can not be read.', 'It needs root and the program nft.', error)
    }
  }

  async #nft(rules: string): Promise<void> {
    try {
      await run(this.#options.nftPath, ['-f', '-'], rules)
    } catch (error) {
      throw unavailable('The firewall rules of the host can not be set.', 'It needs root, the program nft and the kernel\'s nf_tables.', error)
    }
  }

  async #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const mine = this.#turn.then(work)
    this.#turn = mine.catch(() => undefined) // the next in turn starts clean; this one's caller gets the failure
    return await mine
  }
}

/** The host's own name servers. Loopback ones are asked by the engine, on the host's side. */
async function nameservers(): Promise<readonly string[]> {
  const found = new Set<string>()
  for (const file of ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']) {
    const body = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return ''
      throw error
    })
    for (const match of body.matchAll(/^\s*nameserver\s+(\S+)/gm)) if (isIPv4(match[1] ?? '') && !match[1]?.startsWith('127.')) found.add(match[1] ?? '')
  }
  return [...found]
}

function run(program: string, args: readonly string[], input: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(program, args, { timeout: NFT_DEADLINE_MS, maxBuffer: 4 * 1024 * 1024 }, (error, stdout) => {
      if (error === null) resolve(stdout)
      else reject(error)
    })
    child.stdin?.on('error', () => undefined) // EPIPE of a program that did not start: the callback has the reason
    child.stdin?.end(input)
  })
}

function unavailable(message: string, hint?: string, cause?: unknown): FaasError {
  return new FaasError('network/unavailable', { message, hint, cause })
}
