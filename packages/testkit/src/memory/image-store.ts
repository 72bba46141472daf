/** Images of the in-memory driver: file trees kept by digest, found by reference. */
import { createHash } from 'node:crypto'
import { readdir, readFile, readlink, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { asId, FaasError, isImageDigest, type ImageConfig, type ImageDigest, type ImageResolveOptions, type ImageStore, type ResolvedImage, type StoredImage } from '@faas-platform/core'
import { utf8 } from '../bytes.js'
import { unpackTar } from '../tar.js'
import { applyTar } from './apply-tar.js'
import { FileTree } from './file-tree.js'

/** What an executable of the in-memory driver starts with: its name decides which program it is, as with busybox. */
export const PROGRAM_MAGIC = utf8('\x7fMEM')

export const EMPTY_CONFIG: ImageConfig = { env: { PATH: '/usr/local/bin:/usr/bin:/bin' }, entrypoint: [], cmd: ['/bin/sh'], workingDir: '/', user: '', labels: {} }

interface Entry {
  readonly digest: ImageDigest
  readonly config: ImageConfig
  readonly tree: FileTree
  readonly sizeBytes: number
  readonly createdAtMs: number
  readonly standIn: boolean
}

const REFERENCE = /^(?:[a-z0-9][a-z0-9.-]*(?::\d+)?\/)?[a-z0-9]+(?:(?:[._/]|__|-+)[a-z0-9]+)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$/

export class MemoryImageStore implements ImageStore {
  readonly #byDigest = new Map<ImageDigest, Entry>()
  readonly #byReference = new Map<string, ImageDigest>()
  /** Runs before every resolve: a registry's delay, or its failure. */
  beforeResolve: (reference: string) => Promise<void> = () => Promise.resolve()
  /** True while a sandbox is made of the image. */
  isUsed: (digest: ImageDigest) => boolean = () => false

  constructor(private readonly nowMs: () => number) {}

  async resolve(reference: string, options: ImageResolveOptions): Promise<ResolvedImage> {
    options.signal.throwIfAborted()
    const name = normalise(reference)
    await this.beforeResolve(name)
    options.signal.throwIfAborted()
    const digest = digestOf(name) ?? this.#byReference.get(name)
    const entry = digest === undefined ? undefined : this.#byDigest.get(digest)
    if (entry === undefined) {
      throw new FaasError('image/not-found', { message: `There is no image ${reference}.`, hint: 'Import it, or check the spelling.', details: { reference } })
    }
    options.onProgress?.({ layer: entry.digest, phase: 'done', currentBytes: entry.sizeBytes, totalBytes: entry.sizeBytes })
    return { digest: entry.digest, reference: name, config: entry.config, sizeBytes: entry.sizeBytes, standIn: entry.standIn }
  }

  list(): Promise<readonly StoredImage[]> {
    return Promise.resolve([...this.#byReference].flatMap(([reference, digest]) => {
      const entry = this.#byDigest.get(digest)
      return entry === undefined ? [] : [stored(reference, entry)]
    }))
  }

  async remove(reference: string): Promise<void> {
    const name = normalise(reference)
    const digest = this.#byReference.get(name)
    if (digest === undefined) throw new FaasError('image/not-found', { message: `There is no image ${reference}.` })
    if (this.isUsed(digest)) throw new FaasError('image/in-use', { message: `The image ${reference} is in use.` })
    this.#byReference.delete(name)
    if (![...this.#byReference.values()].includes(digest)) this.#byDigest.delete(digest)
    await Promise.resolve()
  }

  async importArchive(path: string, options: { readonly reference?: string; readonly standIn?: boolean; readonly signal: AbortSignal }): Promise<readonly StoredImage[]> {
    const info = await stat(path)
    if (!info.isDirectory()) throw new FaasError('runtime/unsupported', { message: 'The in-memory driver imports OCI layout directories only.' })
    const blob = async (digest: string): Promise<Buffer> => readFile(join(path, 'blobs', digest.replace(':', '/')))
    const index = JSON.parse(await readFile(join(path, 'index.json'), 'utf8')) as { manifests: { digest: string; annotations?: Record<string, string> }[] }
    const made: StoredImage[] = []
    for (const { digest, annotations } of index.manifests) {
      const manifest = JSON.parse((await blob(digest)).toString()) as { config: { digest: string }; layers: { digest: string }[] }
      const config = JSON.parse((await blob(manifest.config.digest)).toString()) as { config?: { Env?: string[]; Entrypoint?: string[]; Cmd?: string[]; WorkingDir?: string; User?: string; Labels?: Record<string, string> } }
      const tree = new FileTree(this.nowMs)
      for (const layer of manifest.layers) {
        const bytes = await blob(layer.digest)
        applyTar(tree, '/', unpackTar(bytes[0] === 0x1f ? gunzipSync(bytes) : bytes), { whiteouts: true })
      }
      const reference = options.reference ?? annotations?.['org.opencontainers.image.ref.name'] ?? basename(path)
      const of = config.config ?? {}
      made.push(this.#store(reference, tree, {
        env: Object.fromEntries((of.Env ?? []).map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)])),
        entrypoint: of.Entrypoint ?? [], cmd: of.Cmd ?? [], workingDir: of.WorkingDir ?? '/', user: of.User ?? '', labels: of.Labels ?? {},
      }, { digest: asId<ImageDigest>(digest), standIn: options.standIn === true }))
    }
    return made
  }

  async buildFromRootfs(rootfsPath: string, options: { readonly reference: string; readonly config: ImageConfig }): Promise<StoredImage> {
    const tree = new FileTree(this.nowMs)
    const walk = async (from: string, to: string): Promise<void> => {
      for (const entry of await readdir(from, { withFileTypes: true })) {
        const source = join(from, entry.name)
        const target = join(to, entry.name)
        if (entry.isDirectory()) {
          tree.mkdir(target, '/', { mode: (await stat(source)).mode & 0o7777 })
          await walk(source, target)
        } else if (entry.isSymbolicLink()) tree.symlink(await readlink(source), target)
        else if (entry.isFile()) {
          const node = tree.open(target, '/', { truncate: true, mode: (await stat(source)).mode & 0o7777 })
          if (node.type === 'file') tree.append(node, await readFile(source))
        } else throw new FaasError('image/invalid', { message: `${entry.name} is neither a file, a directory nor a link.` })
      }
    }
    await walk(rootfsPath, '/')
    return this.#store(options.reference, tree, options.config, { standIn: false })
  }

  /** Adds an image by hand: `files` are path → content, `programs` names that become executables in /bin. */
  add(reference: string, options: { readonly files?: Readonly<Record<string, string | Uint8Array>>; readonly programs: Iterable<string>; readonly config?: Partial<ImageConfig>; readonly standIn?: boolean }): StoredImage {
    const tree = new FileTree(this.nowMs)
    for (const path of ['/bin', '/dev', '/etc', '/proc', '/root', '/sys', '/tmp', '/usr', '/usr/bin', '/var']) tree.mkdir(path, '/')
    tree.lookup('/tmp').mode = 0o1777
    for (const name of options.programs) writeFile(tree, `/bin/${name}`, PROGRAM_MAGIC, 0o755)
    for (const [path, content] of Object.entries(options.files ?? {})) {
      tree.mkdir(path.slice(0, path.lastIndexOf('/')) || '/', '/', { parents: true })
      writeFile(tree, path, typeof content === 'string' ? utf8(content) : content, 0o644)
    }
    return this.#store(reference, tree, { ...EMPTY_CONFIG, ...options.config }, { standIn: options.standIn === true })
  }

  tree(digest: ImageDigest): FileTree | undefined {
    return this.#byDigest.get(digest)?.tree
  }

  #store(reference: string, tree: FileTree, config: ImageConfig, options: { readonly digest?: ImageDigest; readonly standIn: boolean }): StoredImage {
    const name = normalise(reference)
    for (const device of ['null', 'zero', 'full', 'tty'] as const) {
      if (!tree.exists('/dev')) tree.mkdir('/dev', '/')
      tree.place(`/dev/${device}`, '/', { type: 'device', device, mode: 0o666, uid: 0, gid: 0, mtimeMs: this.nowMs(), origin: null })
    }
    const hash = createHash('sha256').update(JSON.stringify(config))
    for (const entry of tree.entries(tree.root, '')) hash.update(JSON.stringify([entry.path, entry.type, entry.mode, entry.linkTarget])).update(entry.data ?? '')
    const digest = options.digest ?? asId<ImageDigest>(`sha256:${hash.digest('hex')}`)
    const entry: Entry = { digest, config, tree, sizeBytes: tree.addedBytes, createdAtMs: this.nowMs(), standIn: options.standIn }
    this.#byDigest.set(digest, entry)
    this.#byReference.set(name, digest)
    return stored(name, entry)
  }
}

function writeFile(tree: FileTree, path: string, content: Uint8Array, mode: number): void {
  const node = tree.open(path, '/', { truncate: true, mode })
  if (node.type === 'file') tree.append(node, content)
}

function stored(reference: string, entry: Entry): StoredImage {
  return { reference, digest: entry.digest, sizeBytes: entry.sizeBytes, createdAtMs: entry.createdAtMs, standIn: entry.standIn }
}

function normalise(reference: string): string {
  if (!REFERENCE.test(reference)) {
    throw new FaasError('image/invalid-reference', { message: `${JSON.stringify(reference)} is not an image reference.`, hint: 'Use name[:tag][@sha256:digest], in lower case.' })
  }
  const name = reference.replace(/^docker\.io\//, '').replace(/^library\//, '')
  return name.includes('@') || /:[^/]+$/.test(name) ? name : `${name}:latest`
}

function digestOf(name: string): ImageDigest | undefined {
  const digest = name.slice(name.indexOf('@') + 1)
  return name.includes('@') && isImageDigest(digest) ? digest : undefined
}
