/**
 * Outbound networks of sandboxes: one network namespace each, joined to the host by a cable of two addresses,
 * and one nftables table that says where packets may go.
 *
 * I1. A sandbox reaches the public IPv4 internet, the resolver, and what it is allowed by name; nothing else.
 *     Not the host (any of its addresses), no private, link-local, metadata or multicast range, no other sandbox.
 * I2. Nothing reaches a sandbox that it did not ask for. IPv6 is off.
 * I3. Namespaces and cables are held by descriptor and go with the sandbox or the helper; the table goes with
 *     the owner, or with its successor's reclaim.
 */
import { readdir } from 'node:fs/promises'
import { FaasError, type LogSink, type ProbeFact } from '@faas-platform/core'
import type { HostKit } from './hostkit.js'
import type { Step } from './hostkit-wire.js'
import { acceptScript, type FilterTable, parseFilterTable, removeScript } from './foreign-firewall.js'
import { addressIn, checkedCidr, defaultLinks, freeSubnet, hostNetworks, resolversOf } from './host-networks.js'
import { egressTable } from './nft-rules.js'

export interface EgressOptions {
  /** `dataDirId`. */
  readonly ownerId: string
  readonly hostkit: HostKit
  /** The `nft` program. */
  readonly nftPath: string
  readonly log: LogSink
  /** IPv4 resolvers for sandboxes; default: the host's. */
  readonly dnsServers?: readonly string[]
  /** A /16 for the cables; default: one of 10.0.0.0/8 that no route of the host covers. */
  readonly subnet?: string
}

export interface EgressNetwork {
  /** Path of the namespace; valid until `closeHandle`. */
  readonly netnsPath: string
  /** Of the user namespace that owns it, when ids were given. */
  readonly usernsPath: string | null
  readonly address: string
  readonly resolvConf: string
  /** Lets go of the namespace: from then on it lives as long as the sandbox. */
  closeHandle(): Promise<void>
  /** Takes back what was allowed by name. */
  release(): Promise<void>
}

/** Host ids that a sandbox's user namespace maps to. */
export interface IdRange {
  readonly base: number
  readonly count: number
}

interface Table {
  readonly generation: number
  readonly subnet: string
  readonly mtu: number
  readonly resolvers: readonly string[]
}

interface Cable {
  readonly link: string
  readonly net: number
  readonly user: number | null
  readonly generation: number
  readonly guest: string
}

/** A busy engine's rules are long. */
const NFT_OUTPUT_MAX = 16 * 1024 * 1024
const NFT_DEADLINE_MS = 10_000
/** Cables made ahead of the next sandbox, once there was a first. */
const READY_CABLES = 4
/** Another firewall may come up later; how often that is looked at, ms. */
const FOREIGN_CHECK_MS = 10_000
const CABLES_MAX = 32_768

export class EgressNetworks implements AsyncDisposable {
  readonly #options: EgressOptions
  readonly #prefix: string
  #table: Promise<Table> | null = null
  #next = Math.floor(Math.random() * CABLES_MAX)
  /** Made ahead, by kind of user namespace. */
  readonly #ready = new Map<string, Promise<Cable>[]>()
  /** Cables of this process, which a reclaim leaves alone. */
  readonly #links = new Set<string>()
  #foreignCheckedAt = Number.NEGATIVE_INFINITY

  constructor(options: EgressOptions) {
    this.#options = options
    this.#prefix = `f${options.ownerId.slice(0, 6)}-`
  }

  /** A namespace for one sandbox. @throws FaasError `network/unavailable`, `request/invalid` */
  async acquire(allowCidrs: readonly string[], ids: IdRange | null = null): Promise<EgressNetwork> {
    const allowed = allowCidrs.map(checkedCidr)
    const table = await this.#ensureTable()
    await this.#acceptInForeignFirewalls()
    const cable = await this.#takeCable(table, ids)
    const elements = allowed.map((cidr) => `${cable.guest} . ${cidr}`).join(', ')
    if (elements !== '') await this.#nft(`add element inet ${this.#tableName} allowed { ${elements} }\n`)
    const { hostkit } = this.#options
    return {
      netnsPath: `/proc/${hostkit.pid}/fd/${cable.net}`,
      usernsPath: cable.user === null ? null : `/proc/${hostkit.pid}/fd/${cable.user}`,
      address: cable.guest,
      resolvConf: table.resolvers.map((address) => `nameserver ${address}\n`).join(''),
      closeHandle: async () => {
        await hostkit.run(closing(cable))
      },
      release: async () => {
        this.#links.delete(cable.link)
        if (elements !== '' && this.#table !== null) await this.#nft(`delete element inet ${this.#tableName} allowed { ${elements} }\n`)
      },
    }
  }

  /** What a probe shows. Makes the table when it can. */
  async facts(): Promise<readonly ProbeFact[]> {
    try {
      const table = await this.#ensureTable()
      const network = await this.acquire([])
      await network.closeHandle()
      await network.release()
      const dns = table.resolvers.length === 0 ? 'no resolver that a sandbox can reach; set one' : `resolver ${table.resolvers.join(', ')}`
      return [{ name: 'egress network', ok: true, evidence: `nftables table ${this.#tableName}, cables from ${table.subnet}, ${dns}` }]
    } catch (error) {
      return [{ name: 'egress network', ok: false, evidence: error instanceof Error ? `${error.message} ${error.cause instanceof Error ? error.cause.message : ''}`.trim() : String(error) }]
    }
  }

  /** Takes away what a killed process left. Returns how many cables there were. */
  async reclaim(): Promise<number> {
    const { hostkit } = this.#options
    const links = (await readdir('/sys/class/net')).filter((name) => name.startsWith(this.#prefix) && !this.#links.has(name))
    if (links.length > 0) await hostkit.run(links.map((name): Step => ['link-remove', name]))
    if (this.#table === null && (await this.#hasTable())) await this.#removeRules()
    return links.length
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { hostkit } = this.#options
    if (this.#table === null) return
    const ready = await Promise.allSettled([...this.#ready.values()].flat())
    this.#ready.clear()
    const held = ready.flatMap((one) => (one.status === 'fulfilled' && one.value.generation === hostkit.generation ? [one.value] : []))
    await hostkit.run(held.flatMap(closing))
    await this.#removeRules()
  }

  get #tableName(): string {
    return `faas-${this.#options.ownerId}`
  }

  async #ensureTable(): Promise<Table> {
    this.#table ??= this.#makeTable().catch((error: unknown) => {
      this.#table = null
      throw new FaasError('network/unavailable', {
        message: 'The host can not give sandboxes an outbound network.',
        hint: '`nft` and a kernel with nf_tables and veth are needed; `faas doctor` shows what is missing.',
        cause: error,
      })
    })
    return this.#table
  }

  async #makeTable(): Promise<Table> {
    const { hostkit, ownerId } = this.#options
    const networks = await hostNetworks()
    const subnet = this.#options.subnet ?? freeSubnet(ownerId, networks)
    const links = await defaultLinks()
    // Replies come in there and go on to a sandbox.
    for (const { name } of links) await hostkit.call('control', `/proc/sys/net/ipv4/conf/${name}/forwarding`, '1')
    const resolvers = this.#options.dnsServers ?? (await resolversOf())
    await this.#nft(egressTable({ name: this.#tableName, links: `${this.#prefix}*`, subnet, resolvers }))
    return { generation: hostkit.generation, subnet, mtu: Math.min(1500, ...links.map(({ mtu }) => mtu)), resolvers }
  }

  async #takeCable(table: Table, ids: IdRange | null): Promise<Cable> {
    const { hostkit, log } = this.#options
    const kind = ids === null ? '' : `${ids.base}+${ids.count}`
    const ready = this.#ready.get(kind) ?? []
    this.#ready.set(kind, ready)
    const prepared = ready.shift()
    while (ready.length < READY_CABLES) {
      const making = this.#makeCable(table, ids)
      // Whoever takes it gets the error; until then nobody does.
      making.catch((error: unknown) => log.debug({ error: String(error) }, 'a network was not prepared ahead'))
      ready.push(making)
    }
    if (prepared !== undefined) {
      const cable = await prepared.catch(() => null)
      if (cable !== null && cable.generation === hostkit.generation) return cable
    }
    return this.#makeCable(table, ids)
  }

  async #makeCable(table: Table, ids: IdRange | null): Promise<Cable> {
    const { hostkit } = this.#options
    const generation = hostkit.generation
    const index = this.#next
    this.#next = (this.#next + 1) % CABLES_MAX
    const host = addressIn(table.subnet, index * 2)
    const guest = addressIn(table.subnet, index * 2 + 1)
    const link = `${this.#prefix}${index.toString(36)}`
    this.#links.add(link)
    try {
      const fds = JSON.parse(await hostkit.call('netns-cable', link, host, guest, table.mtu, ...(ids === null ? [] : [ids.base, ids.count]))) as { net: number; user: number | null }
      return { link, ...fds, generation, guest }
    } catch (error) {
      this.#links.delete(link)
      throw new FaasError('network/unavailable', { message: 'A network for the sandbox could not be made.', cause: error })
    }
  }

  /** Other firewalls (Docker's) drop forwarded packets that they do not know; ours must be accepted there too. */
  async #acceptInForeignFirewalls(): Promise<void> {
    const now = performance.now()
    if (now - this.#foreignCheckedAt < FOREIGN_CHECK_MS) return
    this.#foreignCheckedAt = now
    const filter = await this.#filterTable()
    const script = filter === null ? '' : acceptScript(filter, `${this.#prefix}*`, this.#tableName)
    if (script !== '') await this.#nft(script)
  }

  async #removeRules(): Promise<void> {
    const filter = await this.#filterTable()
    // `add` first: deleting a table that is not there would fail.
    const own = `add table inet ${this.#tableName}\ndelete table inet ${this.#tableName}\n`
    await this.#nft((filter === null ? '' : removeScript(filter, this.#tableName)) + own)
    this.#table = null
    this.#foreignCheckedAt = Number.NEGATIVE_INFINITY
  }

  /** The table that iptables keeps for IPv4; null when there is none. */
  async #filterTable(): Promise<FilterTable | null> {
    if (!(await this.#tables()).includes('ip filter')) return null
    return parseFilterTable(await this.#run(['-j', 'list', 'table', 'ip', 'filter'], ''))
  }

  async #hasTable(): Promise<boolean> {
    return (await this.#tables()).includes(`inet ${this.#tableName}`)
  }

  async #tables(): Promise<readonly string[]> {
    const { nftables } = JSON.parse(await this.#run(['-j', 'list', 'tables'], '')) as {
      readonly nftables: readonly { readonly table?: { readonly family: string; readonly name: string } }[]
    }
    return nftables.flatMap(({ table }) => (table === undefined ? [] : [`${table.family} ${table.name}`]))
  }

  async #nft(script: string): Promise<void> {
    await this.#run(['-f', '-'], script)
  }

  async #run(args: readonly string[], input: string): Promise<string> {
    const { hostkit, nftPath } = this.#options
    const done = JSON.parse(
      await hostkit.call('run', `argv=${[nftPath, ...args].join('\0')}`, 'env=PATH=/usr/sbin:/usr/bin', `stdin=${input}`, `output=${NFT_OUTPUT_MAX}`, `timeout=${NFT_DEADLINE_MS}`),
    ) as { readonly code: number | null; readonly stdout: string; readonly stderr: string }
    if (done.code !== 0) throw new Error(`nft: ${done.stderr.trim()}`)
    return done.stdout
  }
}

function closing({ net, user }: Cable): Step[] {
  return user === null ? [['close', net]] : [['close', net], ['close', user]]
}
