/** The package as others install it: built, packed, imported, required, bundled for browsers. */
import { execFile } from 'node:child_process'
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createContext, runInContext } from 'node:vm'
import { build } from 'vite'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as sdk from './index.js'

const exec = promisify(execFile)
const PACKAGE = fileURLToPath(new URL('..', import.meta.url))
const TSC = fileURLToPath(new URL('../../../node_modules/.bin/tsc', import.meta.url))
let work: string

beforeAll(async () => {
  work = await mkdtemp(join(tmpdir(), 'faas-sdk-test-'))
  const installed = join(work, 'node_modules/@faas-platform/sdk')
  await mkdir(installed, { recursive: true })
  await exec(TSC, ['-p', PACKAGE, '--outDir', join(installed, 'dist'), '--tsBuildInfoFile', join(work, 'buildinfo')])
  await cp(join(PACKAGE, 'package.json'), join(installed, 'package.json'))
})
afterAll(() => rm(work, { recursive: true, force: true }))

const USE = `
const names = Object.keys(sdk).sort()
if (sdk.default !== sdk.FaaSClient) throw new Error('the default export is not the class')
new sdk.FaaSClient('http://localhost:1')
console.log(names.length)`

describe('the package', () => {
  it.each([
    ['import', 'use.mjs', `const sdk = await import('@faas-platform/sdk')${USE}`],
    ['require', 'use.cjs', `const sdk = require('@faas-platform/sdk')${USE}`],
  ])('loads by %s', async (_how, file, source) => {
    await writeFile(join(work, file), source)
    const { stdout, stderr } = await exec(process.execPath, [join(work, file)])
    expect(Number(stdout)).toBeGreaterThanOrEqual(Object.keys(sdk).length)
    expect(stderr).toBe('')
  })

  it('type-checks in a strict program without the types of Node', async () => {
    await writeFile(join(work, 'use.ts'), `
import FaaSClient, { FaaSTimeoutError, FunctionBuilder, run, Runtime, type ExecutionResult, type StreamEvent } from '@faas-platform/sdk'
const client = new FaaSClient({ baseUrl: 'http://localhost:8080', runtime: Runtime.Docker, cacheEnabled: false, maxRetries: 2, timeout: 1000, apiKey: 'k' })
client.on('execution', ({ elapsedMs, cacheHit }) => void [elapsedMs.toFixed(1), cacheHit]).on('retry', ({ attempt, error }) => void [attempt + 1, error.message])
export async function main(): Promise<string> {
  const result: ExecutionResult = await client.useDocker().execute({ command: ['true'], envVars: { A: '1' } })
  for await (const event of client.executeStream({ command: 'true' })) { const seen: StreamEvent = event; void seen }
  try { await client.runPython('1', { timeoutMs: 5 }) } catch (error) { if (error instanceof FaaSTimeoutError) return error.stdout }
  const { status } = await client.healthCheck()
  void [new FunctionBuilder('f').withCPU(1).build().cpuCores, status, (await client.instances.list())[0]?.status, (await client.getMetrics()).cache_hit_rate.toFixed(2)]
  return result.output ?? (await run('1'))
}`)
    await writeFile(join(work, 'tsconfig.json'), JSON.stringify({
      compilerOptions: { module: 'NodeNext', target: 'ES2022', strict: true, exactOptionalPropertyTypes: true, noEmit: true, types: [], lib: ['ES2023', 'DOM', 'DOM.Iterable', 'DOM.AsyncIterable'] },
      files: ['use.ts'],
    }))
    await writeFile(join(work, 'package.json'), '{"type":"module"}')
    await exec(TSC, ['-p', work]).catch((error: { stdout: string }) => expect.fail(error.stdout))
  })

  it('has the exported names that it promises', () => {
    expect(Object.keys(sdk).sort()).toEqual([
      'ClientMetrics', 'ExecutionMode', 'FaaSApiError', 'FaaSAuthError', 'FaaSClient', 'FaaSConnectionError', 'FaaSError', 'FaaSRateLimitError',
      'FaaSResponseError', 'FaaSTimeoutError', 'FunctionBuilder', 'Runtime', 'default', 'executeBody', 'executionResultOf', 'run',
    ])
  })

  it('has no dependencies', async () => {
    const manifest = JSON.parse(await readFile(join(PACKAGE, 'package.json'), 'utf8')) as Record<string, unknown>
    expect(manifest['dependencies']).toBeUndefined()
    expect(manifest['peerDependencies']).toBeUndefined()
  })
})

describe('in a browser', () => {
  it('runs with nothing but the platform of the web', async () => {
    const server = createServer((request, response) => {
      request.resume()
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ request_id: 'r1', exit_code: 0, stdout: 'hi\n', stderr: '', duration_ms: 1 }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const bundle = await build({
        configFile: false, logLevel: 'silent',
        build: { write: false, minify: false, lib: { entry: join(PACKAGE, 'src/index.ts'), formats: ['iife'], name: 'sdk' } },
      })
      const [output] = Array.isArray(bundle) ? bundle : [bundle]
      if (output === undefined || !('output' in output)) expect.fail('nothing was bundled')
      // No `process`, no `Buffer`, no `require`: what a page has.
      const page = createContext({ fetch, URL, URLSearchParams, AbortController, TextEncoder, TextDecoder, crypto, performance, setTimeout, clearTimeout, btoa, atob })
      runInContext(output.output[0].code.replace(/^(var|const|let) sdk\b/m, 'globalThis.sdk'), page)
      const { port } = server.address() as AddressInfo
      const result: unknown = await runInContext(`new sdk.FaaSClient('http://127.0.0.1:${port}').execute({ command: 'echo hi' }).then((result) => result.output)`, page)
      expect(result).toBe('hi\n')
    } finally {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  })
})
