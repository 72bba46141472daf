/** Images that declare volumes: what a guest writes there lies outside its writable layer. */
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { isFaasError, MIB, type ResolvedImage } from '@faas-platform/core'
import tar from 'tar-stream'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { EngineClient } from './engine-client.js'
import { shape, list } from './engine-shape.js'
import { realDriver, sh, type RealDriver } from './testing/real-driver.js'

const signal = AbortSignal.timeout(120_000)
const REFERENCE = `faas-docker-test/volumes:${process.pid}`
let real: RealDriver
let client: EngineClient
let image: ResolvedImage

beforeAll(async () => {
  real = await realDriver()
  client = new EngineClient({ socketPath: real.options.socketPath })
  const made = shape(await client.json({ method: 'POST', path: '/containers/create', json: { Image: real.image.digest, Cmd: ['/bin/true'] } }), 'container')
  await client.json({ method: 'POST', path: '/commit', query: { container: String(made['Id']), repo: 'faas-docker-test/volumes', tag: process.pid, changes: 'VOLUME /data' } })
  await client.json({ method: 'DELETE', path: `/containers/${String(made['Id'])}` })
  image = await real.driver.images.resolve(REFERENCE, { pull: 'never', signal })
})

afterAll(async () => {
  await real.driver.images.remove(REFERENCE, signal)
  client.close()
  await real[Symbol.asyncDispose]()
})

async function anonymousVolumes(): Promise<number> {
  return list(shape(await client.json({ path: '/volumes' }), 'volumes'), 'Volumes').length
}

describe('an image with a volume', () => {
  test('counts against the disk limit in the volume too', async () => {
    await using sandbox = await real.driver.create(real.spec({ image, limits: { memoryBytes: 128 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 8 * MIB } }), { signal })
    const error = await sh(sandbox, 'dd if=/dev/zero of=/data/big bs=1M count=64; sleep 60').catch((thrown: unknown) => thrown)
    expect(isFaasError(error, 'execution/disk-limit')).toBe(true)
  })

  test('leaves no volume behind, and its retained state holds what is in it', async () => {
    const before = await anonymousVolumes()
    const sandbox = await real.driver.create(real.spec({ image }), { signal })
    expect(await anonymousVolumes()).toBe(before + 1)
    await sh(sandbox, 'mkdir /data/sub; echo kept > /data/sub/file')
    const state = await sandbox.retain()
    const found = new Map<string, string>()
    const extract = tar.extract()
    Readable.from(state.export(signal)).pipe(extract as unknown as NodeJS.WritableStream)
    for await (const entry of extract) found.set(entry.header.name, (await buffer(entry as unknown as Readable)).toString())
    expect(found.get('data/sub/file')).toBe('kept\n')
    await state[Symbol.asyncDispose]()
    expect(await anonymousVolumes()).toBe(before)
  })
})
