/** The nftables table of one owner, as text. */

/** Nothing of these is ever public. RFC 6890, RFC 6598 (carrier NAT), RFC 3927 (link-local, cloud metadata). */
export const BLOCKED_RANGES = [
  '0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24', '192.0.2.0/24',
  '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24', '224.0.0.0/4', '240.0.0.0/4',
] as const

export interface TableOptions {
  readonly name: string
  /** Pattern of the host's cable ends, `f1a2b3c-*`. */
  readonly links: string
  readonly subnet: string
  readonly resolvers: readonly string[]
}

export function egressTable({ name, links, subnet, resolvers }: TableOptions): string {
  const dns = resolvers.length === 0 ? '' : `ip daddr { ${resolvers.join(', ')} } meta l4proto { tcp, udp } th dport 53 accept`
  return `add table inet ${name}
delete table inet ${name}
table inet ${name} {
  set allowed {
    type ipv4_addr . ipv4_addr
    flags interval
    comment "sandbox . destination"
  }
  chain from_sandbox {
    meta nfproto ipv6 drop
    ct state established,related accept
    ${dns}
    ip saddr . ip daddr @allowed accept
  }
  chain refuse {
    meta l4proto tcp reject with tcp reset
    reject with icmp type admin-prohibited
  }
  chain forward {
    type filter hook forward priority filter - 5; policy accept;
    iifname "${links}" oifname "${links}" drop
    iifname "${links}" jump from_sandbox
    iifname "${links}" ip daddr { ${BLOCKED_RANGES.join(', ')} } jump refuse
    iifname "${links}" accept
    oifname "${links}" ct state established,related accept
    oifname "${links}" drop
  }
  chain input {
    type filter hook input priority filter - 5; policy accept;
    iifname "${links}" jump from_sandbox
    iifname "${links}" jump refuse
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr ${subnet} oifname != "${links}" masquerade
  }
}
`
}
