import { describe, expect, it } from 'vitest'
import { RegistryGuard } from './registry-guard.js'

const names: Readonly<Record<string, readonly string[]>> = {
  'registry.example': ['93.184.215.14', '2606:2800:21f:cb07::1'],
  'inside.example': ['93.184.215.14', '10.1.2.3'],
  'mapped.example': ['::ffff:169.254.169.254'],
  'nowhere.example': [],
}
const guard = (...allowed: string[]): RegistryGuard => new RegistryGuard(allowed, async (name) => names[name] ?? [])

describe('the registry guard', () => {
  it.each(['127.0.0.1:5000', '127.1', '0x7f000001', '2130706433', '169.254.169.254', '10.0.0.1', '192.168.1.1:443', '[::1]:5000', '[fd00::1]', '[::ffff:127.0.0.1]', 'inside.example', 'mapped.example'])(
    'refuses %s', async (host) => {
      await expect(guard().check(host)).rejects.toMatchObject({ code: 'image/registry-refused', kind: 'permission_denied' })
    })

  it.each(['registry.example', 'registry.example:5000', '93.184.215.14', 'nowhere.example'])('lets %s pass', async (host) => {
    await expect(guard().check(host)).resolves.toBeUndefined()
  })

  it('lets pass what its owner named, with or without the port', async () => {
    await expect(guard('127.0.0.1:5000').check('127.0.0.1:5000')).resolves.toBeUndefined()
    await expect(guard('inside.example').check('inside.example:8443')).resolves.toBeUndefined()
    await expect(guard('127.0.0.1:5000').check('127.0.0.1:6000')).rejects.toMatchObject({ code: 'image/registry-refused' })
    await expect(guard('*').check('169.254.169.254')).resolves.toBeUndefined()
  })
})
