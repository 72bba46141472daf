/**
 * Pulls from one registry endpoint.
 * @see OCI distribution-spec "Pull"
 */
import { FaasError, isImageDigest, systemClock, type Clock } from '@faas-platform/core'
import { digestOf, mismatch, TruncatedError, type BlobTransfer } from '../blob-dir.js'
import type { ContentSource } from '../content-store.js'
import { clip, invalidImage, MANIFEST_ACCEPT, type Descriptor } from '../manifest.js'
import type { NamedReference } from '../reference.js'
import { Authorizer, unauthorized } from './authorization.js'
import { firstOf, type CredentialSource } from './credentials.js'
import { mayUseHttp, pullFailed, readBounded, request, TransientError, type HttpOptions, type HttpResponse } from './http.js'

export interface RegistryOptions {
  readonly credentials?: CredentialSource
  /** `host[:port]` of registries to speak plain http to, beside those on loopback. */
  readonly insecureRegistries?: readonly string[]
  /** Whether a host may be connected to at all. Default: every one. @throws FaasError `image/registry-refused` */
  readonly checkHost?: (host: string) => Promise<void>
  /** Registry → base addresses asked before it, in order. */
  readonly mirrors?: Readonly<Record<string, readonly string[]>>
  /** Attempts in a row that bring no byte before a download is given up. Default 5. */
  readonly attemptsMax?: number
  /** Wait before the second attempt, doubled each time. Default 250 ms. */
  readonly backoffMs?: number
  /** The longest wait, also when the server asks for a longer one. Default 15 000 ms. */
  readonly backoffMsMax?: number
  /** Default 30 000 ms. */
  readonly idleTimeoutMs?: number
  readonly clock?: Clock
  /** 0 ≤ x < 1, for jitter. */
  readonly random?: () => number
}

export interface Endpoint {
  /** As credentials are stored for it. */
  readonly registry: string
  readonly base: URL
}

/** However well it goes on: no download needs more resumptions than this. */
const RESUMES_MAX = 100

export class RegistryClient {
  readonly #http: HttpOptions
  readonly #clock: Clock
  readonly #authorizer: Authorizer
  readonly #attemptsMax: number

  constructor(private readonly options: RegistryOptions) {
    this.#http = { insecureRegistries: new Set(options.insecureRegistries), idleTimeoutMs: options.idleTimeoutMs ?? 30_000, checkHost: options.checkHost ?? (async () => {}) }
    this.#clock = options.clock ?? systemClock
    this.#attemptsMax = options.attemptsMax ?? 5
    this.#authorizer = new Authorizer({ credentials: options.credentials ?? firstOf(), clock: this.#clock, http: this.#http })
  }

  /** Mirrors first, the registry itself last. @throws FaasError `config/invalid` */
  endpoints(registry: string): readonly Endpoint[] {
    const mirrors = this.options.mirrors ?? {}
    const configured = (Object.hasOwn(mirrors, registry) ? mirrors[registry] : undefined) ?? []
    const own = registry === 'docker.io' ? 'registry-1.docker.io' : registry
    const scheme = mayUseHttp(own, this.#http.insecureRegistries) ? 'http' : 'https'
    return [...configured.map(mirrorEndpoint), { registry, base: new URL(`${scheme}://${own}/`) }]
  }

  /** @throws FaasError `image/not-found`, `image/unauthorized`, `image/pull-failed`, `image/digest-mismatch`, `image/invalid` */
  async manifest(endpoint: Endpoint, reference: Pick<NamedReference, 'repository' | 'tag' | 'digest' | 'text'>, bytesMax: number, signal: AbortSignal): Promise<{ bytes: Uint8Array; mediaType: string | undefined }> {
    const attempts = new Attempts(this.options, this.#clock, this.#attemptsMax)
    for (;;) {
      try {
        const response = await this.#get(endpoint, reference.repository, `manifests/${reference.digest ?? reference.tag ?? 'latest'}`, { accept: MANIFEST_ACCEPT }, signal)
        const bytes = await readBounded(response, bytesMax, () => invalidImage(`The manifest is larger than ${bytesMax} bytes.`))
        const announced = reference.digest ?? response.headers.get('docker-content-digest') ?? undefined
        const actual = digestOf(bytes)
        if (announced !== undefined && isImageDigest(announced) && announced !== actual) throw mismatch(announced, `its digest is ${actual}`)
        const type = response.headers.get('content-type')?.split(';')[0]?.trim()
        return { bytes, mediaType: type === undefined || type === '' || type === 'application/json' ? undefined : type }
      } catch (error) {
        if (await attempts.again(error, false, signal)) continue
        throw this.#explain(error, reference.text)
      }
    }
  }

  /** The content of one repository at one endpoint. */
  source(endpoint: Endpoint, reference: NamedReference): ContentSource {
    const { repository } = reference
    return {
      document: async (descriptor, bytesMax, signal) => (await this.manifest(endpoint, { repository, digest: descriptor.digest, text: reference.text }, bytesMax, signal)).bytes,
      blob: (descriptor) => this.#transfer(endpoint, reference, descriptor),
    }
  }

  #transfer(endpoint: Endpoint, reference: NamedReference, descriptor: Descriptor): BlobTransfer {
    const attempts = new Attempts(this.options, this.#clock, this.#attemptsMax)
    return {
      open: async (offset, signal) => {
        const headers = offset > 0 ? { range: `bytes=${offset}-` } : {}
        const response = await this.#get(endpoint, reference.repository, `blobs/${descriptor.digest}`, headers, signal)
        const start = response.status === 206 ? /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1] : '0'
        if (start !== undefined && (Number(start) === offset || Number(start) === 0)) return { offset: Number(start), bytes: response.body }
        await response.discard()
        throw pullFailed('The registry sent another part of a blob than it was asked for.')
      },
      again: async (error, progressed, signal) => {
        if (await attempts.again(error, progressed, signal)) return true
        if (error instanceof TransientError) throw this.#explain(error, reference.text)
        return false
      },
    }
  }

  async #get(endpoint: Endpoint, repository: string, path: string, headers: Readonly<Record<string, string>>, signal: AbortSignal): Promise<HttpResponse> {
    const { registry, base } = endpoint
    const url = new URL(`v2/${repository}/${path}`, base)
    const attempt = (authorization: string | undefined): Promise<HttpResponse> =>
      request(url, { headers: { ...headers, ...(authorization !== undefined && { authorization }) } }, signal, this.#http)
    let response = await attempt(this.#authorizer.cached(registry, repository))
    // Only the registry itself may ask for credentials, not a place it redirected to.
    if (response.status === 401 && response.url.origin === url.origin) {
      const challenge = response.headers.get('www-authenticate') ?? ''
      await response.discard()
      this.#authorizer.forget(registry, repository)
      response = await attempt(await this.#authorizer.answer(registry, repository, challenge, base, signal))
    }
    if (response.status === 200 || response.status === 206) return response
    await response.discard()
    throw statusFailure(response, registry, url.origin !== response.url.origin)
  }

  #explain(error: unknown, reference: string): unknown {
    if (!(error instanceof TransientError)) return error
    return new FaasError('image/pull-failed', {
      message: `Pulling ${reference} failed: ${clip(error.message)}.`,
      hint: 'Check the network, or bring the image in with `faas image import <archive>` or `faas image build <directory>`.',
      cause: error,
    })
  }
}

function statusFailure({ status, headers }: HttpResponse, registry: string, redirected: boolean): Error {
  if (status === 429 || status === 408 || status >= 500) return new TransientError(`${registry} answered ${status}`, retryAfterMs(headers.get('retry-after')))
  if (status === 404 && !redirected) return new FaasError('image/not-found', { message: `The registry ${registry} does not have this image.`, hint: 'Check the name and the tag.' })
  if ((status === 401 || status === 403) && !redirected) return unauthorized(registry, true)
  // A signed address that ran out is answered like this; the registry will sign a new one.
  if (redirected && status === 403) return new TransientError(`the storage of ${registry} answered 403`, undefined)
  return pullFailed(`The registry ${registry} answered ${status}.`)
}

function retryAfterMs(header: string | null): number | undefined {
  return header !== null && /^\d{1,6}$/.test(header) ? Number(header) * 1000 : undefined
}

function mirrorEndpoint(address: string): Endpoint {
  try {
    const base = new URL(address.endsWith('/') ? address : `${address}/`)
    return { registry: base.host, base }
  } catch (cause) {
    throw new FaasError('config/invalid', { message: `The registry mirror "${clip(address)}" is not an address.`, cause })
  }
}

/** Counts attempts, and waits between them. */
class Attempts {
  #inVain = 0
  #total = 0

  constructor(
    private readonly options: Pick<RegistryOptions, 'backoffMs' | 'backoffMsMax' | 'random'>,
    private readonly clock: Clock,
    private readonly max: number,
  ) {}

  async again(error: unknown, progressed: boolean, signal: AbortSignal): Promise<boolean> {
    if (!(error instanceof TransientError || error instanceof TruncatedError)) return false
    this.#inVain = progressed ? 1 : this.#inVain + 1
    if (this.#inVain >= this.max || ++this.#total > RESUMES_MAX) return false
    const { backoffMs = 250, backoffMsMax = 15_000, random = Math.random } = this.options
    const asked = error instanceof TransientError ? error.retryAfterMs : undefined
    const backoff = backoffMs * 2 ** (this.#inVain - 1) * (0.5 + random() / 2)
    await this.clock.delay(Math.min(asked ?? backoff, backoffMsMax), signal)
    return true
  }
}
