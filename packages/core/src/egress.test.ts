import { describe, expect, test } from 'vitest'
import { egressAllowCidrs } from './egress.js'
import { isFaasError } from './errors.js'

describe('allowed ranges of an egress policy', () => {
  test('are normalised, and those within a wider one go', () => {
    expect(egressAllowCidrs(['10.1.2.3/16', '10.1.9.0/24', '192.168.7.7', '10.1.0.0/16', '0.0.0.0/0'])).toEqual(['0.0.0.0/0'])
    expect(egressAllowCidrs(['192.168.7.7', '10.1.9.0/24', '10.1.2.3/16', '255.255.255.255/32'])).toEqual(['10.1.0.0/16', '192.168.7.7/32', '255.255.255.255/32'])
  })

  test.each(['', '10.0.0.0/33', '256.1.1.1', '::1/128', '10.0.0', '10.0.0.0/8; drop', 'example.com'])('"%s" is refused', (cidr) => {
    let thrown: unknown
    try {
      egressAllowCidrs([cidr])
    } catch (error) {
      thrown = error
    }
    expect(isFaasError(thrown, 'request/invalid')).toBe(true)
  })
})
