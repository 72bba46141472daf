/**
 * The engine's images as an `ImageStore`.
 *
 * A digest is the engine's image id: the only name that every image has, pulled, loaded or built, and that the engine
 * checks content against. (It is the configuration's digest with the classic store and the manifest's with the
 * containerd store, so the same image has another digest in another runtime's store.)
 *
 * I1. A name is marked as a stand-in only while it points at the image it was marked with.
 */
import { randomUUID } from 'node:crypto'
import { mkdir, rm, stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import {
  FaasError, isImageDigest,
  type ImageConfig, type ImageDigest, type ImageResolveOptions, type ImageStore, type PullProgress, type ResolvedImage, type StoredImage,
} from '@faas-platform/core'
import { LABEL_IMAGE } from './container-config.js'
import { listContainers } from './engine-calls.js'
import { segment, type EngineClient } from './engine-client.js'
import { EngineError, isEngineStatus, toDriverError } from './engine-error.js'
import { number, optionalNumber, optionalText, shape, sub, text, textMap, texts, type Shape } from './engine-shape.js'
import type { EngineVersion } from './engine-version.js'
import { dockerArchive, readArchive, unpackArchive, type ArchivedImage, type Platform } from './image-archive.js'
import { parseImageReference, type ImageReference } from './image-reference.js'
import { readJsonLines } from './json-lines.js'
import { imageConfigJson, writeRootfsLayer } from './rootfs-layer.js'
import type { StandIns } from './stand-ins.js'

const PULL_IDLE_MS_MAX = 120_000
const LOAD_DEADLINE_MS = 600_000
const REMOVE_DEADLINE_MS = 120_000

export type RegistryCredentials = { readonly username: string; readonly password: string } | { readonly identityToken: string }

export interface DockerImagesOptions {
  readonly client: EngineClient
  readonly engine: (signal: AbortSignal) => Promise<EngineVersion>
  readonly standIns: StandIns
  /** For unpacking archives. */
  readonly temporaryDir: string
  readonly archiveBytesMax: number
  readonly credentials: (registry: string) => Promise<RegistryCredentials | undefined>
  /** The engine connects by itself: its redirects are not seen here. @throws FaasError `image/registry-refused` */
  readonly checkRegistry: (registry: string) => Promise<void>
}

export class DockerImages implements ImageStore {
  readonly #options: DockerImagesOptions

  constructor(options: DockerImagesOptions) {
    this.#options = options
  }

  async resolve(reference: string, options: ImageResolveOptions): Promise<ResolvedImage> {
    const wanted = parseImageReference(reference)
    const { signal, pull } = options
    const present = pull === 'always' ? undefined : await this.#inspect(wanted, signal)
    if (present !== undefined) return await this.#resolved(present, wanted, signal)
    if (pull === 'never') throw notFound(wanted.full, 'It is not stored in the Docker Engine, and the request does not allow to pull it.')
    await this.#pull(wanted, options)
    const pulled = await this.#inspect(wanted, signal)
    if (pulled === undefined) throw new FaasError('image/pull-failed', { message: 'The engine reported a finished pull but does not know the image.', details: { reference: wanted.full } })
    return await this.#resolved(pulled, wanted, signal)
  }

  async list(signal: AbortSignal): Promise<readonly StoredImage[]> {
    await this.#options.engine(signal)
    const answer = await this.#call('image/pull-failed', 'The engine could not list its images.', () => this.#options.client.json({ path: '/images/json', signal }))
    if (!Array.isArray(answer)) throw new FaasError('image/pull-failed', { message: 'The engine did not answer with a list of images.' })
    const images: StoredImage[] = []
    for (const entry of answer as unknown[]) {
      const image = shape(entry, 'image')
      const digest = imageId(image)
      for (const tag of texts(image, 'RepoTags')) {
        if (tag === '<none>:<none>') continue
        const reference = parseImageReference(tag).full
        images.push({
          reference,
          digest,
          sizeBytes: number(image, 'Size'),
          createdAtMs: number(image, 'Created') * 1000,
          standIn: await this.#options.standIns.has(reference, digest),
        })
      }
    }
    return images
  }

  async remove(reference: string, signal: AbortSignal): Promise<void> {
    await this.#options.engine(signal)
    const wanted = parseImageReference(reference)
    await this.#requireUnused(wanted, signal)
    try {
      await this.#options.client.json({ method: 'DELETE', path: `/images/${segment(wanted.full)}`, signal, deadlineMs: REMOVE_DEADLINE_MS })
    } catch (error) {
      if (isEngineStatus(error, 404)) throw notFound(wanted.full, 'It is not stored in the Docker Engine.', error)
      if (isEngineStatus(error, 409)) throw inUse(wanted, error)
      throw toDriverError(error, 'store/unavailable', 'The engine could not remove the image.')
    }
    await this.#options.standIns.set(wanted.full, null)
  }

  async importArchive(
    file: string,
    options: { readonly reference?: string; readonly standIn?: boolean; readonly signal: AbortSignal; readonly onProgress?: (progress: PullProgress) => void },
  ): Promise<readonly StoredImage[]> {
    const { signal, onProgress } = options
    const platform = await this.#options.engine(signal)
    return await this.#withTemporaryDir(async (temporary) => {
      const info = await stat(file).catch((error: unknown) => {
        throw new FaasError('image/invalid', { message: 'The image archive can not be read.', details: { path: file }, cause: error })
      })
      if (info.isFile()) await unpackArchive(file, temporary, { bytesMax: this.#options.archiveBytesMax, signal })
      const found = await readArchive(info.isFile() ? temporary : file, platform)
      if (options.reference !== undefined && found.length !== 1) {
        throw new FaasError('image/invalid', { message: `The archive holds ${found.length} images; a reference can be given to one only.` })
      }
      const images: StoredImage[] = []
      for (const image of found) {
        const names = (options.reference === undefined ? image.names : [options.reference]).map(parseImageReference)
        if (names.length === 0) {
          throw new FaasError('image/invalid-reference', { message: 'The image in the archive has no name.', hint: 'Import it under a reference.' })
        }
        images.push(...(await this.#load(image, names, { standIn: options.standIn === true, signal, onProgress })))
      }
      return images
    })
  }

  async buildFromRootfs(rootfsPath: string, options: { readonly reference: string; readonly config: ImageConfig; readonly signal: AbortSignal }): Promise<StoredImage> {
    const { signal } = options
    const name = parseImageReference(options.reference)
    const platform: Platform = await this.#options.engine(signal)
    return await this.#withTemporaryDir(async (temporary) => {
      const layerFile = path.join(temporary, 'layer.tar')
      const layer = await writeRootfsLayer(rootfsPath, layerFile, signal)
      const configFile = path.join(temporary, 'config.json')
      const config = imageConfigJson(options.config, layer.sha256, platform)
      await writeFile(configFile, config)
      const image: ArchivedImage = {
        names: [],
        config: { file: configFile, sizeBytes: Buffer.byteLength(config), sha256: null },
        layers: [{ file: layerFile, sizeBytes: layer.sizeBytes, sha256: layer.sha256 }],
      }
      const [stored] = await this.#load(image, [name], { standIn: false, signal, onProgress: undefined })
      if (stored === undefined) throw new FaasError('image/invalid', { message: 'The engine did not keep the image.' })
      return stored
    })
  }

  /** @throws FaasError `image/not-found` when the engine no longer has it */
  async requireById(digest: ImageDigest, signal: AbortSignal): Promise<void> {
    await this.#options.engine(signal)
    if ((await this.#inspectText(digest, signal)) === undefined) throw notFound(digest, 'The Docker Engine does not have it any more.')
  }

  async #load(
    image: ArchivedImage,
    names: readonly ImageReference[],
    options: { readonly standIn: boolean; readonly signal: AbortSignal; readonly onProgress: ((progress: PullProgress) => void) | undefined },
  ): Promise<readonly StoredImage[]> {
    const { signal, onProgress } = options
    const tags = names.map((name) => {
      if (name.tag === null) throw new FaasError('image/invalid-reference', { message: 'An imported image needs a name with a tag.', details: { reference: name.full } })
      return `${name.name}:${name.tag}`
    })
    const body = dockerArchive(image, tags, signal)
    let broken: unknown
    body.on('error', (error) => {
      broken = error
    })
    try {
      const reply = await this.#options.client.stream({
        method: 'POST', path: '/images/load', query: { quiet: false }, headers: { 'Content-Type': 'application/x-tar' }, body, signal, deadlineMs: LOAD_DEADLINE_MS,
      })
      await readJsonLines(reply, { signal, idleMsMax: LOAD_DEADLINE_MS }, (line) => {
        const progress = pullProgress(line)
        if (progress !== undefined) onProgress?.(progress)
      })
    } catch (error) {
      if (broken instanceof FaasError) throw broken
      throw toDriverError(error, 'image/invalid', 'The Docker Engine did not accept the image.')
    }
    const stored: StoredImage[] = []
    for (const tag of tags) {
      const found = await this.#inspectText(tag, signal)
      if (found === undefined) throw new FaasError('image/invalid', { message: 'The Docker Engine did not keep the image.', details: { reference: tag } })
      const digest = imageId(found)
      await this.#options.standIns.set(tag, options.standIn ? digest : null)
      stored.push({ reference: tag, digest, sizeBytes: number(found, 'Size'), createdAtMs: createdAtMs(found), standIn: options.standIn })
    }
    return stored
  }

  async #pull(wanted: ImageReference, options: ImageResolveOptions): Promise<void> {
    const { signal, onProgress } = options
    await this.#options.engine(signal)
    await this.#options.checkRegistry(wanted.registry)
    const credentials = await this.#options.credentials(wanted.registry)
    const headers = credentials === undefined ? {} : { 'X-Registry-Auth': registryAuth(wanted.registry, credentials) }
    try {
      const reply = await this.#options.client.stream({
        method: 'POST', path: '/images/create', query: { fromImage: wanted.name, tag: wanted.digest ?? wanted.tag ?? undefined }, headers, signal, deadlineMs: PULL_IDLE_MS_MAX,
      })
      await readJsonLines(reply, { signal, idleMsMax: PULL_IDLE_MS_MAX }, (line) => {
        const progress = pullProgress(line)
        if (progress !== undefined) onProgress?.(progress)
      })
    } catch (error) {
      throw pullError(error, wanted, credentials !== undefined)
    }
  }

  /**
   * A name that a sandbox was made by. Where an image has further names the engine would take this one away without a
   * word, and the sandbox could not be made again.
   */
  async #requireUnused(wanted: ImageReference, signal: AbortSignal): Promise<void> {
    const users = await this.#call('store/unavailable', 'The engine could not tell who uses the image.', () => listContainers(this.#options.client, [`${LABEL_IMAGE}=${wanted.full}`], signal))
    if (users.length > 0) throw inUse(wanted)
  }

  /** By name; `name@digest` also by our digest, the image's id, which the engine does not look up together with a name. */
  async #inspect(wanted: ImageReference, signal: AbortSignal): Promise<Shape | undefined> {
    const found = await this.#inspectText(wanted.full, signal)
    if (found !== undefined || wanted.digest === null) return found
    const byId = await this.#inspectText(wanted.digest, signal)
    const named = byId !== undefined && texts(byId, 'RepoTags').some((tag) => parseImageReference(tag).name === wanted.name)
    return named ? byId : undefined
  }

  async #inspectText(name: string, signal: AbortSignal): Promise<Shape | undefined> {
    await this.#options.engine(signal)
    try {
      return shape(await this.#options.client.json({ path: `/images/${segment(name)}/json`, signal }), 'image')
    } catch (error) {
      if (isEngineStatus(error, 404)) return undefined
      throw toDriverError(error, 'image/pull-failed', 'The Docker Engine could not look up the image.')
    }
  }

  async #resolved(image: Shape, wanted: ImageReference, signal: AbortSignal): Promise<ResolvedImage> {
    const engine = await this.#options.engine(signal)
    const architecture = optionalText(image, 'Architecture') ?? engine.architecture
    const os = optionalText(image, 'Os') ?? engine.os
    if (os !== engine.os || architecture !== engine.architecture) {
      throw new FaasError('image/platform-mismatch', {
        message: `The image is for ${os}/${architecture}; the Docker Engine runs ${engine.os}/${engine.architecture}.`,
        details: { reference: wanted.full },
      })
    }
    const digest = imageId(image)
    return {
      digest,
      reference: wanted.full,
      config: readImageConfig(sub(image, 'Config')),
      sizeBytes: number(image, 'Size'),
      standIn: await this.#options.standIns.has(wanted.full, digest), // I1
    }
  }

  async #call<T>(code: 'image/pull-failed' | 'store/unavailable', message: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      throw toDriverError(error, code, message)
    }
  }

  async #withTemporaryDir<T>(work: (dir: string) => Promise<T>): Promise<T> {
    const dir = path.join(this.#options.temporaryDir, `docker-image-${randomUUID()}`)
    await mkdir(dir, { recursive: true, mode: 0o700 })
    try {
      return await work(dir)
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  }
}

export function readImageConfig(config: Shape): ImageConfig {
  const env: Record<string, string> = {}
  for (const entry of texts(config, 'Env')) {
    const equals = entry.indexOf('=')
    if (equals > 0) env[entry.slice(0, equals)] = entry.slice(equals + 1)
  }
  return {
    env,
    entrypoint: texts(config, 'Entrypoint'),
    cmd: texts(config, 'Cmd'),
    workingDir: optionalText(config, 'WorkingDir') || '/',
    user: optionalText(config, 'User') ?? '',
    labels: textMap(config, 'Labels'),
  }
}

const PHASES: readonly (readonly [RegExp, PullProgress['phase']])[] = [
  [/^(Pulling fs layer|Waiting|Preparing)/, 'waiting'],
  [/^Downloading/, 'downloading'],
  [/^(Verifying Checksum|Download complete)/, 'verifying'],
  [/^(Extracting|Loading layer)/, 'unpacking'],
  [/^(Pull complete|Already exists|Layer already exists)/, 'done'],
]

/** One line of the engine's progress; undefined when it speaks of no layer. */
export function pullProgress(line: Shape): PullProgress | undefined {
  const layer = optionalText(line, 'id')
  const status = optionalText(line, 'status')
  if (layer === undefined || status === undefined) return undefined
  const phase = PHASES.find(([pattern]) => pattern.test(status))?.[1]
  if (phase === undefined) return undefined
  const detail = sub(line, 'progressDetail')
  const total = optionalNumber(detail, 'total')
  return { layer, phase, currentBytes: optionalNumber(detail, 'current') ?? 0, totalBytes: total === undefined || total <= 0 ? null : total }
}

/** Which of the registry's many ways to say no it was. The engine passes them on as text only. */
function pullError(thrown: unknown, wanted: ImageReference, hadCredentials: boolean): unknown {
  if (!(thrown instanceof EngineError) || thrown.kind === 'unreachable' || thrown.kind === 'protocol') {
    return toDriverError(thrown, 'image/pull-failed', 'The pull broke off.')
  }
  const said = thrown.message
  const details = { reference: wanted.full }
  if (/no matching manifest|does not match the specified platform/i.test(said)) {
    return new FaasError('image/platform-mismatch', { message: 'The image has no variant for the platform of the Docker Engine.', details, cause: thrown })
  }
  if (/manifest unknown|not found|name unknown|repository does not exist/i.test(said)) {
    return notFound(wanted.full, hadCredentials ? undefined : 'Check the name; a private image needs credentials for its registry.', thrown)
  }
  if (/unauthorized|authentication required|no basic auth|denied|forbidden/i.test(said)) {
    return new FaasError('image/unauthorized', { message: 'The registry refused access to the image.', hint: 'Configure credentials for this registry.', details, cause: thrown })
  }
  if (/(unexpected|invalid) digest|digest mismatch|filesystem layer verification failed|verification failed/i.test(said)) {
    return new FaasError('image/digest-mismatch', { message: 'The registry sent content that does not match its digest.', details, cause: thrown })
  }
  return new FaasError('image/pull-failed', { message: 'The registry could not be reached or refused the pull.', details, cause: thrown })
}

function registryAuth(registry: string, credentials: RegistryCredentials): string {
  const serveraddress = registry === 'docker.io' ? 'https://index.docker.io/v1/' : registry
  // Padded, unlike Node's own base64url: the engine decodes strictly, and drops what it can not read without a word.
  const login = 'identityToken' in credentials ? { identitytoken: credentials.identityToken } : credentials
  return Buffer.from(JSON.stringify({ ...login, serveraddress })).toString('base64').replaceAll('+', '-').replaceAll('/', '_')
}

function imageId(image: Shape): ImageDigest {
  const id = text(image, 'Id')
  if (!isImageDigest(id)) throw new EngineError('protocol', 'The engine names an image by something that is no SHA-256 digest.')
  return id
}

function createdAtMs(image: Shape): number {
  const parsed = Date.parse(optionalText(image, 'Created') ?? '')
  return Number.isNaN(parsed) ? 0 : parsed
}

function inUse(wanted: ImageReference, cause?: unknown): FaasError {
  return new FaasError('image/in-use', { message: 'The image is in use by a container.', details: { reference: wanted.full }, cause })
}

function notFound(reference: string, hint?: string, cause?: unknown): FaasError {
  return new FaasError('image/not-found', { message: 'The image is neither stored here nor known to its registry.', hint, details: { reference }, cause })
}
