import { describe, expect, it } from 'vitest'
import { acceptScript, parseFilterTable, removeScript } from './foreign-firewall.js'

const table = (...entries: object[]): ReturnType<typeof parseFilterTable> => parseFilterTable(JSON.stringify({ nftables: [{ metainfo: {} }, { table: { family: 'ip', name: 'filter' } }, ...entries] }))
const forward = (policy: string): object => ({ chain: { family: 'ip', table: 'filter', name: 'FORWARD', handle: 1, policy } })
const dockerUser = { chain: { family: 'ip', table: 'filter', name: 'DOCKER-USER', handle: 2 } }

describe('rules in the firewall of somebody else', () => {
  it('are not needed where forwarding is accepted', () => {
    expect(acceptScript(table(forward('accept')), 'f1-*', 'faas-1')).toBe('')
    expect(acceptScript(table(), 'f1-*', 'faas-1')).toBe('')
  })

  it('go into the chain that Docker keeps for others, else into FORWARD', () => {
    expect(acceptScript(table(forward('drop'), dockerUser), 'f1-*', 'faas-1')).toContain('insert rule ip filter DOCKER-USER iifname "f1-*" accept comment "faas-1"')
    expect(acceptScript(table(forward('drop')), 'f1-*', 'faas-1')).toContain('insert rule ip filter FORWARD')
  })

  it('are added once and taken out by their comment', () => {
    const rule = { rule: { family: 'ip', table: 'filter', chain: 'DOCKER-USER', handle: 7, comment: 'faas-1' } }
    const other = { rule: { family: 'ip', table: 'filter', chain: 'DOCKER-USER', handle: 8, comment: 'faas-2' } }
    const now = table(forward('drop'), dockerUser, rule, other)
    expect(acceptScript(now, 'f1-*', 'faas-1')).toBe('')
    expect(removeScript(now, 'faas-1')).toBe('delete rule ip filter DOCKER-USER handle 7\n')
  })
})
