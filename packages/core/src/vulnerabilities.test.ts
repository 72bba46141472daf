import { describe, expect, test } from 'vitest'
import { knownVulnerabilities } from './vulnerabilities.js'

const ids = (component: 'runc' | 'crun', version: string): readonly string[] => knownVulnerabilities(component, version).map(({ id }) => id)

describe('known escapes', () => {
  test.each([
    ['1.3.3', []],
    ['1.3.6+ds1', []],
    ['v1.4.2', []],
    ['1.2.8', []],
    ['1.2.7', ['CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']],
    ['1.4.0-rc.2', ['CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']],
    ['1.1.15', ['CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']],
    ['1.1.5+ds1-1+deb12u1', ['CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']],
    ['1.1.5+ds1', ['CVE-2024-21626', 'CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']],
    ['unknown', ['CVE-2024-21626', 'CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881']],
  ])('runc %s', (version, expected) => {
    expect(ids('runc', version)).toEqual(expected)
  })

  test('crun is judged by its own line', () => {
    expect(ids('crun', '1.8.1')).toEqual(['CVE-2025-24965'])
    expect(ids('crun', '1.28')).toEqual([])
  })
})

test('a later revision of a backport has its fix, beside an upstream version without it', () => {
  expect(knownVulnerabilities('runc', '1.1.5', '1.1.5+ds1-1+deb12u3').map(({ id }) => id)).not.toContain('CVE-2024-21626')
  expect(knownVulnerabilities('runc', '1.1.5', '1.1.5+ds1-1').map(({ id }) => id)).toContain('CVE-2024-21626')
  expect(knownVulnerabilities('gvisor', '0.0~20240729.0')).toEqual([])
})
