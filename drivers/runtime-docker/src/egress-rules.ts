/** The firewall rules of a bridge whose sandboxes may reach the internet and nothing else. Pure text for `nft -f`. */
import { EGRESS_BLOCKED_CIDRS } from '@faas-platform/core'

export interface EgressRules {
  readonly table: string
  readonly bridge: string
  readonly subnet: string
  /** Where the host sends its own name look-ups; sandboxes may ask there too, and nothing else there. */
  readonly nameservers: readonly string[]
  /** Sandbox address → ranges it may reach although they are blocked. */
  readonly allowed: ReadonlyMap<string, readonly string[]>
}

/** Replaces the table as a whole, in one step. */
export function egressRuleset(rules: EgressRules): string {
  const { table, bridge, subnet, nameservers, allowed } = rules
  const elements = [...allowed].flatMap(([address, cidrs]) => cidrs.map((cidr) => `${address} . ${cidr}`))
  const names = nameservers.length === 0 ? [] : [`iifname "${bridge}" ip daddr { ${nameservers.join(', ')} } meta l4proto { tcp, udp } th dport 53 accept`]
  return [
    `table inet ${table}`,
    `delete table inet ${table}`,
    `table inet ${table} {`,
    '  set allowed {',
    '    type ipv4_addr . ipv4_addr',
    '    flags interval',
    ...(elements.length === 0 ? [] : [`    elements = { ${elements.join(', ')} }`]),
    '  }',
    '  chain forward {',
    '    type filter hook forward priority -1; policy accept;',
    `    oifname "${bridge}" ct state established,related accept`,
    `    oifname "${bridge}" drop`, // nobody comes in, and no sandbox reaches another by way of the host
    `    iifname "${bridge}" meta nfproto ipv6 drop`,
    ...names.map((line) => `    ${line}`),
    `    iifname "${bridge}" ip saddr . ip daddr @allowed accept`,
    `    iifname "${bridge}" ip daddr { ${EGRESS_BLOCKED_CIDRS.join(', ')} } drop`,
    '  }',
    '  chain input {', // the host itself, under whatever address
    '    type filter hook input priority -1; policy accept;',
    `    iifname "${bridge}" ct state established,related accept`,
    ...names.map((line) => `    ${line}`),
    `    iifname "${bridge}" meta nfproto ipv4 ip saddr . ip daddr @allowed accept`,
    `    iifname "${bridge}" drop`,
    '  }',
    '  chain postrouting {', // where the engine does this too, the first one wins
    '    type nat hook postrouting priority 99; policy accept;',
    `    ip saddr ${subnet} oifname != "${bridge}" masquerade`,
    '  }',
    '}',
    '',
  ].join('\n')
}

export function allowRule(verb: 'add' | 'delete', table: string, address: string, cidrs: readonly string[]): string {
  return `${verb} element inet ${table} allowed { ${cidrs.map((cidr) => `${address} . ${cidr}`).join(', ')} }\n`
}
