/** What network policy `egress` never reaches unless it is allowed by name. Domain policy: drivers translate it into rules. */
import { FaasError } from './errors.js'

/**
 * IPv4 ranges that are not the public internet: this host, private and shared networks, link-local (cloud metadata),
 * protocol, documentation and benchmark ranges, multicast, reserved. IPv6 is not offered to sandboxes at all.
 * @see IANA IPv4 Special-Purpose Address Registry
 */
export const EGRESS_BLOCKED_CIDRS = [
  '0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24', '192.0.2.0/24',
  '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4',
] as const

interface Range {
  readonly cidr: string
  readonly first: number
  readonly bits: number
}

/**
 * The IPv4 ranges of a policy's `allowCidrs`, normalised, without those that lie within another.
 * @throws FaasError `request/invalid`
 */
export function egressAllowCidrs(cidrs: readonly string[]): readonly string[] {
  const ranges = cidrs.map(parseCidr).sort((a, b) => a.bits - b.bits)
  const kept: Range[] = []
  for (const range of ranges) if (!kept.some((wider) => mask(range.first, wider.bits) === wider.first)) kept.push(range)
  return kept.map(({ cidr }) => cidr)
}

function parseCidr(text: string): Range {
  const [, a, b, c, d, length] = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:\/(\d{1,2}))?$/.exec(text) ?? []
  const parts = [a, b, c, d].map(Number)
  const bits = length === undefined ? 32 : Number(length)
  if (a === undefined || bits > 32 || parts.some((part) => part > 255)) {
    throw new FaasError('request/invalid', { message: 'An allowed range must be an IPv4 address or range, like 10.1.2.0/24.', details: { cidr: text.slice(0, 100) } })
  }
  const first = mask(parts.reduce((sum, part) => sum * 256 + part, 0), bits)
  return { cidr: `${[24, 16, 8, 0].map((shift) => Math.floor(first / 2 ** shift) % 256).join('.')}/${bits}`, first, bits }
}

function mask(address: number, bits: number): number {
  const size = 2 ** (32 - bits)
  return Math.floor(address / size) * size
}
