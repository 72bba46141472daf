/**
 * Which registries an image name may make this host talk to.
 *
 * A caller chooses the name, so without this anybody who may run an image could make the gateway connect to
 * loopback, to private networks or to a cloud's metadata service. The address is looked up here and once more by
 * whoever connects: a name server that answers differently the second time is not covered.
 */
import { lookup } from 'node:dns/promises'
import { BlockList, isIP } from 'node:net'
import { EGRESS_BLOCKED_CIDRS, FaasError } from '@faas-platform/core'

/** IPv6 that is not the public internet: unspecified, loopback, NAT64 and 6to4 (which reach IPv4), unique local, link local, multicast. */
const BLOCKED_IPV6 = ['::/128', '::1/128', '64:ff9b::/96', '2002::/16', 'fc00::/7', 'fe80::/10', 'ff00::/8'] as const

const blocked = new BlockList()
for (const [cidrs, family] of [[EGRESS_BLOCKED_CIDRS, 'ipv4'], [BLOCKED_IPV6, 'ipv6']] as const) {
  for (const cidr of cidrs) {
    const [address = '', bits = ''] = cidr.split('/')
    blocked.addSubnet(address, Number(bits), family)
  }
}

export class RegistryGuard {
  readonly #named: ReadonlySet<string>

  /** @param allowed `host` or `host:port` of registries that may be on private addresses; `*` for all. */
  constructor(allowed: readonly string[], private readonly resolve: typeof resolveAll = resolveAll) {
    this.#named = new Set(allowed)
  }

  /**
   * @param host `name[:port]`, as in an image reference or a URL.
   * @throws FaasError `image/registry-refused`. A name that does not resolve is for the connection to report.
   */
  async check(host: string): Promise<void> {
    const { hostname } = new URL(`https://${host}`) // also turns 127.1 and 0x7f000001 into what a connection would use
    if (this.#named.has('*') || this.#named.has(host) || this.#named.has(hostname)) return
    const bare = hostname.replace(/^\[|\]$/g, '')
    const addresses = isIP(bare) === 0 ? await this.resolve(bare) : [bare]
    const refused = addresses.find(isPrivate)
    if (refused === undefined) return
    throw new FaasError('image/registry-refused', {
      message: `The registry ${host} is on this host or a private network, which image names may not reach.`,
      hint: `If it is yours, the gateway's owner lists it in FAAS_PRIVATE_REGISTRIES=${host}.`,
      details: { registry: host },
    })
  }
}

function isPrivate(address: string): boolean {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1]
  if (mapped !== undefined) return blocked.check(mapped, 'ipv4')
  return blocked.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
}

async function resolveAll(hostname: string): Promise<readonly string[]> {
  try {
    return (await lookup(hostname, { all: true })).map(({ address }) => address)
  } catch {
    return [] // the connection will fail the same way and say so
  }
}
