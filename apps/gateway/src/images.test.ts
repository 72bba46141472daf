import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { eventually } from '@faas-platform/testkit'
import { systemClock, systemIds } from '@faas-platform/core'
import { describe, expect, it } from 'vitest'
import { makeRig } from '../test-support/rig.js'
import { createKey } from './access/keys.js'

async function rootfs(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'faas-rootfs-'))
  await mkdir(join(path, 'etc'))
  await mkdir(join(path, 'bin'))
  await writeFile(join(path, 'etc/made'), 'here\n')
  // As the in-memory driver knows its programs.
  for (const name of ['sh', 'cat', 'echo', 'pwd']) await writeFile(join(path, 'bin', name), '\x7fMEM', { mode: 0o755 })
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

describe('an image built of a directory', () => {
  it('runs with the environment and the working directory it was given', async () => {
    await using rig = await makeRig()
    await using dir = await rootfs()
    const built = await rig.post('/api/v1/images/build', { path: dir.path, reference: 'my/tool:1', env: { GREETING: 'hi', PATH: '/bin' }, working_dir: '/etc' })
    expect(built.status).toBe(200)
    expect(built.body).toMatchObject({ store: 'memory', stand_in: false })
    expect(built.body['digest']).toMatch(/^sha256:[0-9a-f]{64}$/)
    const run = await rig.post('/api/v1/execute', { image: 'my/tool:1', command: 'echo $GREETING; pwd; cat made' })
    expect(run.body).toMatchObject({ exit_code: 0, stdout: 'hi\n/etc\nhere\n' })
  })

  it('needs an absolute path that exists, and a name', async () => {
    await using rig = await makeRig()
    await using dir = await rootfs()
    for (const body of [{ path: 'relative', reference: 'a:1' }, { path: `${dir.path}/nothing`, reference: 'a:1' }, { path: dir.path }]) {
      const { status, body: answer } = await rig.post('/api/v1/images/build', body)
      expect([status, answer['error'].code], JSON.stringify(body)).toEqual([400, 'request/invalid'])
    }
  })

  it('needs the scope admin, as it reads the host', async () => {
    await using rig = await makeRig({ pretendHost: '0.0.0.0' })
    await using dir = await rootfs()
    const source = { clock: systemClock, ids: systemIds }
    const { key } = await createKey(rig.ledger, { name: 'images only', scopes: ['images'] }, source)
    const { key: admin } = await createKey(rig.ledger, { name: 'admin', scopes: ['admin'] }, source)
    const body = { path: dir.path, reference: 'my/tool:1' }
    expect((await rig.post('/api/v1/images/build', body, { 'x-api-key': key })).status).toBe(403)
    expect((await rig.post('/api/v1/images/build', body, { 'x-api-key': admin })).status).toBe(200)
  })
})

describe('the list of executions', () => {
  it('shows what is not over yet as active', async () => {
    await using rig = await makeRig()
    await rig.post('/api/v1/execute', { command: 'true' })
    const { body: accepted } = await rig.post('/api/v1/execute', { command: 'sleep 60', async: true })
    await eventually(async () => (await rig.get(`/api/v1/executions/${accepted['request_id']}`)).body.status === 'running')
    const ids = async (state: string): Promise<unknown[]> => (await rig.get(`/api/v1/executions?state=${state}`)).body.executions.map((entry: { request_id: string }) => entry.request_id)
    expect(await ids('active')).toEqual([accepted['request_id']])
    expect(await ids('active,succeeded')).toHaveLength(2)
    await rig.post(`/api/v1/executions/${accepted['request_id']}/cancel`, {})
    expect(await ids('active')).toEqual([])
  })
})
