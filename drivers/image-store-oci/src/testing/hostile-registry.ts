/** A registry that a test can make misbehave, request by request. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { TestImage } from './fixtures.js'

export type Misbehave = (request: IncomingMessage, response: ServerResponse, path: string) => boolean | undefined

export interface HostileRegistry {
  readonly host: string
  readonly url: string
  /** Every request: method, path, and what it carried. */
  readonly requests: { readonly path: string; readonly authorization: string | undefined; readonly range: string | undefined }[]
  /** Answers first; returning true means that it did. */
  misbehave: Misbehave
  serve(of: TestImage, tag?: string): void
  countOf(part: string): number
  stop(): Promise<void>
}

export async function startHostileRegistry(hostname = '127.0.0.1'): Promise<HostileRegistry> {
  const blobs = new Map<string, Uint8Array>()
  const manifests = new Map<string, Uint8Array>()
  const requests: HostileRegistry['requests'] = []
  const server = createServer((request, response) => {
    const path = request.url ?? ''
    requests.push({ path, authorization: request.headers.authorization, range: request.headers.range })
    if (registry.misbehave(request, response, path) === true) return
    const [, kind = '', name = ''] = /^\/v2\/.+\/(manifests|blobs)\/([^/?]+)/.exec(path) ?? []
    const bytes = (kind === 'manifests' ? manifests : blobs).get(name)
    if (bytes === undefined) {
      response.writeHead(404).end()
      return
    }
    if (kind === 'manifests') response.setHeader('content-type', (JSON.parse(Buffer.from(bytes).toString()) as { mediaType: string }).mediaType)
    const from = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
    if (from > 0) response.writeHead(206, { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` })
    response.end(bytes.subarray(from))
  })
  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', reject).listen(0, '127.0.0.1', () => {
      const address = server.address()
      if (typeof address === 'object' && address !== null) resolve(address.port)
    })
  })
  const registry: HostileRegistry = {
    host: `${hostname}:${port}`,
    url: `http://${hostname}:${port}`,
    requests,
    misbehave: () => false,
    serve(of, tag = 'latest') {
      for (const [digest, bytes] of of.blobs) blobs.set(digest, bytes)
      manifests.set(tag, of.manifest)
      manifests.set(of.manifestDigest, of.manifest)
    },
    countOf: (part) => requests.filter(({ path }) => path.includes(part)).length,
    stop: () => new Promise((resolve) => {
      server.closeAllConnections()
      server.close(() => resolve())
    }),
  }
  return registry
}
