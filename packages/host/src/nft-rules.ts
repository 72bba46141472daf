/** The nftables table of one owner, as text. */
import { EGRESS_BLOCKED_CIDRS } from '@faas-platform/core'

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
    iifname "${links}" ip daddr { ${EGRESS_BLOCKED_CIDRS.join(', ')} } jump refuse
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
