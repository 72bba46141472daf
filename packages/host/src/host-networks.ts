/** What the host's network looks like, read from the kernel. */
import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { isIPv4 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { FaasError } from '@faas-platform/core'

export interface Ipv4Range {
  readonly first: number
  readonly last: number
}

export interface Link {
  readonly name: string
  readonly mtu: number
}

export function toNumber(address: string): number {
  return address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

export function toAddress(number: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(number / 2 ** shift) % 256).join('.')
}

/** The n-th address of a network. */
export function addressIn(cidr: string, n: number): string {
  return toAddress(parseCidr(cidr).first + n)
}

/** @throws FaasError `request/invalid` */
export function parseCidr(text: string): Ipv4Range {
  const [address = '', bits = '32', ...rest] = text.split('/')
  const length = Number(bits)
  if (!isIPv4(address) || rest.length > 0 || !/^\d{1,2}$/.test(bits) || length > 32) {
    throw new FaasError('request/invalid', { message: `${JSON.stringify(text)} is not an IPv4 address or network.` })
  }
  const size = 2 ** (32 - length)
  const first = Math.floor(toNumber(address) / size) * size
  return { first, last: first + size - 1 }
}

/** The network in its plain form: host bits cleared. @throws FaasError `request/invalid` */
export function checkedCidr(text: string): string {
  const { first, last } = parseCidr(text)
  return `${toAddress(first)}/${32 - Math.log2(last - first + 1)}`
}

/** Networks that the host has addresses in or routes to, the default route aside. */
export async function hostNetworks(): Promise<readonly Ipv4Range[]> {
  const addresses = Object.values(networkInterfaces()).flatMap((list) => list ?? []).flatMap(({ family, cidr }) => (family === 'IPv4' && cidr !== null ? [parseCidr(cidr)] : []))
  const routes = (await routeTable()).filter(({ mask }) => mask !== 0).map(({ destination, mask }) => ({ first: destination, last: destination + (0xffff_ffff - mask) }))
  return [...addresses, ...routes]
}

/** Interfaces that lead to the outside. */
export async function defaultLinks(): Promise<readonly Link[]> {
  const names = new Set((await routeTable()).filter(({ destination, mask }) => destination === 0 && mask === 0).map(({ link }) => link))
  return Promise.all([...names].map(async (name) => ({ name, mtu: Number((await readFile(`/sys/class/net/${name}/mtu`, 'utf8')).trim()) })))
}

/** A /16 of 10.0.0.0/8 that collides with nothing; the same for the same owner while it is free. */
export function freeSubnet(ownerId: string, taken: readonly Ipv4Range[]): string {
  const start = createHash('sha256').update(ownerId).digest().readUInt8(0)
  for (let i = 0; i < 256; i++) {
    const cidr = `10.${(start + i) % 256}.0.0/16`
    const { first, last } = parseCidr(cidr)
    if (!taken.some((range) => range.first <= last && first <= range.last)) return cidr
  }
  throw new FaasError('network/unavailable', { message: 'Every /16 of 10.0.0.0/8 is in use on this host.', hint: 'Set a subnet for sandboxes.' })
}

/**
 * Resolvers that a sandbox can reach: the host's, when they are not on its loopback. systemd's stub is; the file
 * beside it then names the real ones. None: names do not resolve until a resolver is configured.
 */
export async function resolversOf(files: readonly string[] = ['/etc/resolv.conf', '/run/systemd/resolve/resolv.conf']): Promise<readonly string[]> {
  for (const file of files) {
    let text: string
    try {
      text = await readFile(file, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
      throw error
    }
    const servers = [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].map((match) => match[1] ?? '').filter((address) => isIPv4(address) && !address.startsWith('127.'))
    if (servers.length > 0) return servers.slice(0, 3)
  }
  return []
}

async function routeTable(): Promise<readonly { readonly link: string; readonly destination: number; readonly mask: number }[]> {
  const text = await readFile('/proc/net/route', 'utf8')
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [link, destination, , , , , , mask] = line.split('\t')
      return link === undefined || destination === undefined || mask === undefined ? [] : [{ link, destination: swapped(destination), mask: swapped(mask) }]
    })
}

/** /proc/net/route prints addresses in the host's byte order. */
function swapped(hex: string): number {
  return Buffer.from(hex, 'hex').reverse().readUInt32BE(0)
}
