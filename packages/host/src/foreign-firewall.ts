/**
 * Living with another firewall. Docker (and ufw) set the FORWARD chain of the `ip filter` table to drop what they
 * do not know, and an accept of ours in another table does not change that: every chain has to accept. So two
 * rules of ours go to the top of that chain, marked with a comment, and are taken out again.
 */

export interface FilterChain {
  readonly name: string
  readonly policy: string | null
}

export interface FilterRule {
  readonly chain: string
  readonly handle: number
  readonly comment: string | null
}

export interface FilterTable {
  readonly chains: readonly FilterChain[]
  readonly rules: readonly FilterRule[]
}

interface NftEntry {
  readonly chain?: { readonly name: string; readonly policy?: string }
  readonly rule?: { readonly chain: string; readonly handle: number; readonly comment?: string }
}

/** Reads `nft -j list table ip filter`. */
export function parseFilterTable(json: string): FilterTable {
  const { nftables } = JSON.parse(json) as { readonly nftables: readonly NftEntry[] }
  return {
    chains: nftables.flatMap(({ chain }) => (chain === undefined ? [] : [{ name: chain.name, policy: chain.policy ?? null }])),
    rules: nftables.flatMap(({ rule }) => (rule === undefined ? [] : [{ chain: rule.chain, handle: rule.handle, comment: rule.comment ?? null }])),
  }
}

/** The script that lets our links through; empty when nothing is in the way or the rules are there. */
export function acceptScript(table: FilterTable, links: string, comment: string): string {
  const forward = table.chains.find(({ name }) => name === 'FORWARD')
  // Docker calls this chain first and leaves its content alone, also when it starts again.
  const chain = table.chains.some(({ name }) => name === 'DOCKER-USER') ? 'DOCKER-USER' : forward?.policy === 'drop' ? 'FORWARD' : null
  if (chain === null || table.rules.some((rule) => rule.chain === chain && rule.comment === comment)) return ''
  return [
    // Nothing but interface matches: iptables-nft can not read a table that holds a native `ct` match, and Docker
    // works through it. Unsolicited packets to a sandbox are dropped by our own table, whose verdict also counts.
    `insert rule ip filter ${chain} oifname "${links}" accept comment "${comment}"\n`,
    `insert rule ip filter ${chain} iifname "${links}" accept comment "${comment}"\n`,
  ].join('')
}

export function removeScript(table: FilterTable, comment: string): string {
  return table.rules.filter((rule) => rule.comment === comment).map(({ chain, handle }) => `delete rule ip filter ${chain} handle ${handle}\n`).join('')
}
