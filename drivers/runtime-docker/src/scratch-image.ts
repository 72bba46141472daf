/**
 * An image with nothing in it, made without a registry: probes need a container, and filling a volume needs one too.
 * Always the same bytes, so that it is there at most once; it has no name and shows up in no listing by name.
 */
import { createHash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { asId, isImageDigest, type ImageDigest } from '@faas-platform/core'
import tar from 'tar-stream'
import type { EngineClient } from './engine-client.js'
import { EngineError, isEngineStatus } from './engine-error.js'
import { optionalText } from './engine-shape.js'
import type { EngineVersion } from './engine-version.js'
import { readJsonLines } from './json-lines.js'

const DEADLINE_MS = 30_000

/** An empty tar: two zero blocks, padded as tar programs do. */
const LAYER = Buffer.alloc(1024)

/** Loads it where it is missing; cheap where it is there. */
export async function loadScratchImage(client: EngineClient, engine: EngineVersion, signal: AbortSignal): Promise<ImageDigest> {
  const config = JSON.stringify({
    created: '1970-01-01T00:00:00Z',
    architecture: engine.architecture,
    os: engine.os,
    config: { Labels: { 'dev.faas-platform.image': 'scratch' } },
    rootfs: { type: 'layers', diff_ids: [`sha256:${createHash('sha256').update(LAYER).digest('hex')}`] },
    history: [{ created: '1970-01-01T00:00:00Z', created_by: 'faas probe' }],
  })
  const expected = asId<ImageDigest>(`sha256:${createHash('sha256').update(config).digest('hex')}`)
  if (await hasImage(client, expected, signal)) return expected
  const pack = tar.pack()
  pack.entry({ name: 'config.json' }, config)
  pack.entry({ name: 'layer.tar' }, LAYER)
  pack.entry({ name: 'manifest.json' }, JSON.stringify([{ Config: 'config.json', RepoTags: null, Layers: ['layer.tar'] }]))
  pack.finalize()
  let loaded: string | undefined
  const reply = await client.stream({
    method: 'POST', path: '/images/load', query: { quiet: true }, headers: { 'Content-Type': 'application/x-tar' }, body: pack as unknown as Readable, signal, deadlineMs: DEADLINE_MS,
  })
  await readJsonLines(reply, { signal, idleMsMax: DEADLINE_MS }, (line) => {
    loaded ??= /sha256:[0-9a-f]{64}/.exec(optionalText(line, 'stream') ?? '')?.[0]
  })
  if (loaded === undefined || !isImageDigest(loaded)) throw new EngineError('protocol', 'The engine did not say which image it loaded.')
  return loaded
}

/** Best effort by nature: other gateways on the same engine may be using it. */
export async function removeScratchImage(client: EngineClient, image: ImageDigest): Promise<void> {
  try {
    await client.json({ method: 'DELETE', path: `/images/${image}`, deadlineMs: DEADLINE_MS })
  } catch (error) {
    if (!isEngineStatus(error, 404, 409)) throw error
  }
}

async function hasImage(client: EngineClient, image: ImageDigest, signal: AbortSignal): Promise<boolean> {
  try {
    await client.json({ path: `/images/${image}/json`, signal })
    return true
  } catch (error) {
    if (isEngineStatus(error, 404)) return false
    throw error
  }
}
