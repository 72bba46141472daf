import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { addressIn, checkedCidr, freeSubnet, parseCidr, resolversOf, toAddress, toNumber } from './host-networks.js'
import { scratchDir } from './testing.js'

describe('IPv4 networks', () => {
  it('an address survives the way to a number and back', () => {
    fc.assert(fc.property(fc.ipV4(), (address) => toAddress(toNumber(address)) === address))
  })

  it('a network holds its own address and is aligned to its size', () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.integer({ min: 0, max: 32 }), (address, bits) => {
        const { first, last } = parseCidr(`${address}/${bits}`)
        expect(toNumber(address)).toBeGreaterThanOrEqual(first)
        expect(toNumber(address)).toBeLessThanOrEqual(last)
        expect(last - first + 1).toBe(2 ** (32 - bits))
        expect(first % (last - first + 1)).toBe(0)
        expect(checkedCidr(`${address}/${bits}`)).toBe(`${toAddress(first)}/${bits}`)
      }),
    )
  })

  it.each(['', 'x', '1.2.3', '1.2.3.4/33', '1.2.3.4/', '1.2.3.4/8/8', '1.2.3.4; drop', '::1/128', '1.2.3.4/-1', '1.2.3.4/1e1'])('%j is refused', (text) => {
    expect(() => parseCidr(text)).toThrow(expect.objectContaining({ code: 'request/invalid' }))
  })

  it('counts addresses from the start of a network', () => {
    expect(addressIn('10.9.0.0/16', 0)).toBe('10.9.0.0')
    expect(addressIn('10.9.0.0/16', 65_535)).toBe('10.9.255.255')
  })

  it('takes a network that nothing of the host overlaps, the same one for the same owner', () => {
    const first = freeSubnet('1a2b3c4d', [])
    expect(freeSubnet('1a2b3c4d', [])).toBe(first)
    expect(freeSubnet('1a2b3c4d', [parseCidr(first)])).not.toBe(first)
    expect(() => freeSubnet('1a2b3c4d', [parseCidr('10.0.0.0/8')])).toThrow(expect.objectContaining({ code: 'network/unavailable' }))
  })
})

describe('resolvers for sandboxes', () => {
  const scratch = scratchDir()
  const file = (name: string, text: string): string => {
    writeFileSync(join(scratch.path, name), text)
    return join(scratch.path, name)
  }

  it('are the host\'s, without loopback and IPv6', async () => {
    expect(await resolversOf([file('a', '# x\nnameserver 127.0.0.53\nnameserver ::1\n nameserver 9.9.9.9\nsearch here\n')])).toEqual(['9.9.9.9'])
  })

  it('come from the next file when the first names only a local stub', async () => {
    expect(await resolversOf([file('b', 'nameserver 127.0.0.53\n'), file('c', 'nameserver 192.168.1.1\n')])).toEqual(['192.168.1.1'])
    expect(await resolversOf([join(scratch.path, 'none'), file('d', '')])).toEqual([])
  })
})
