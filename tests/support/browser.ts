/** Opens a page in a real browser, which hands back what its script found by one POST. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, mkdtemp, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { within } from '@faas-platform/testkit'
// @ts-expect-error The set-up scripts are JavaScript without declarations.
import { ensureBrowser } from '../../scripts/bootstrap/browser.mjs'
import { REPO_ROOT } from './gateway-process.js'

const PAGE_MS_MAX = 60_000
const SDK_DIR = path.join(REPO_ROOT, 'sdks/typescript/dist')

export interface Browser {
  readonly path: string
  readonly env: Readonly<Record<string, string>>
}

/** Fetches the browser when it is not there yet; a text says why there is none. @throws in CI, where it is demanded */
export async function browserOrReason(): Promise<Browser | string> {
  try {
    return (await ensureBrowser()) as Browser
  } catch (error) {
    if (process.env['CI'] === 'true') throw error
    return `no browser: ${error instanceof Error ? error.message : String(error)}`
  }
}

/** Serves the SDK as it is built below `/sdk/`, and `/` as a page that runs `script`. */
export class PageServer implements AsyncDisposable {
  #script = ''
  #told: (result: unknown) => void = () => undefined
  private constructor(private readonly server: Server) {
    server.on('request', (request, response) => {
      this.#answer(request).then(({ type, body }) => response.writeHead(200, { 'content-type': type }).end(body), (error: unknown) => response.writeHead(404).end(String(error)))
    })
  }

  static async listen(): Promise<PageServer> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new PageServer(server)
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  /** @returns what the script, the body of an async function that knows `sdk`, returned; `{ failed }` when it threw */
  async run(browser: Browser, script: string): Promise<unknown> {
    this.#script = script
    const result = new Promise<unknown>((resolve) => (this.#told = resolve))
    const profile = await mkdtemp(path.join(tmpdir(), 'faas-browser-'))
    // Its sandbox needs a user other than root; the page is ours.
    const args = ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--no-first-run', '--remote-debugging-port=0', `--user-data-dir=${profile}`, `${this.origin}/`]
    const child = spawn(browser.path, args, { env: { ...process.env, ...browser.env }, stdio: ['ignore', 'ignore', 'pipe'] })
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)))
    const closed = once(child, 'close')
    try {
      return await within(PAGE_MS_MAX, `the page to report; the browser said: ${said}`, Promise.race([result, closed.then(() => Promise.reject(new Error(`the browser ended: ${said}`)))]))
    } finally {
      child.kill('SIGKILL')
      await closed
      // Its helpers write until they notice that it is gone.
      await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.close()
    this.server.closeAllConnections()
    await once(this.server, 'close')
  }

  async #answer(request: IncomingMessage): Promise<{ readonly type: string; readonly body: string | Buffer }> {
    const url = new URL(request.url ?? '/', this.origin)
    if (request.method === 'POST') {
      const chunks: Buffer[] = []
      for await (const chunk of request) chunks.push(chunk as Buffer)
      this.#told(JSON.parse(Buffer.concat(chunks).toString('utf8')))
      return { type: 'text/plain', body: 'thanks' }
    }
    if (url.pathname.startsWith('/sdk/')) return { type: 'text/javascript', body: await readFile(path.join(SDK_DIR, path.basename(url.pathname))) }
    return { type: 'text/html', body: page(this.#script) }
  }
}

function page(script: string): string {
  return `<!doctype html><script type="module">
    const tell = (result) => fetch('/result', { method: 'POST', body: JSON.stringify(result) })
    try {
      const sdk = await import('/sdk/index.js')
      const test = async () => { ${script} }
      await tell(await test())
    } catch (error) {
      await tell({ failed: String(error?.stack ?? error) })
    }
  </script>`
}
