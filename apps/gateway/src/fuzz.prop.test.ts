/**
 * Requests generated from the OpenAPI document, valid ones and mutated ones.
 * I1. No request is answered with a 5xx, except the typed ones that a feature, a drain or a deadline stands for.
 * I2. Every JSON answer matches the schema that the document promises for its status.
 */
import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Json, Rig } from '../test-support/rig.js'
import { makeRig } from '../test-support/rig.js'

const RUNS = Number(process.env['FAAS_FUZZ_RUNS'] ?? 250)
/** 501 a feature that is not there, 503 a runtime that is not there, 504 a deadline. */
const EXPECTED_5XX = new Set([501, 503, 504])

interface Operation {
  readonly method: string
  readonly path: string
  readonly spec: Json
}

let rig: Rig
let operations: Operation[]
const ajv = new Ajv2020({ strict: false, formats: { 'date-time': true } })

beforeAll(async () => {
  rig = await makeRig({ env: { FAAS_MAX_TIMEOUT_MS: '30000', FAAS_DEFAULT_TIMEOUT_MS: '300' } })
  const { body } = await rig.get('/openapi.json')
  operations = Object.entries(body.paths as Record<string, Record<string, unknown>>).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, spec]) => ({ method: method.toUpperCase(), path, spec })))
})
afterAll(() => rig[Symbol.asyncDispose]())

/** Values of a JSON schema, as far as the document uses it. */
function valueOf(schema: Json): fc.Arbitrary<unknown> {
  if (Array.isArray(schema.enum)) return fc.constantFrom(...schema.enum)
  if ('const' in schema) return fc.constant(schema.const)
  if (Array.isArray(schema.anyOf)) return fc.oneof(...schema.anyOf.map(valueOf))
  switch (schema.type) {
    case 'null':
      return fc.constant(null)
    case 'boolean':
      return fc.boolean()
    case 'integer':
      return fc.integer({ min: Math.max(schema.minimum ?? -1000, -1e9), max: Math.min(schema.maximum ?? 100_000, 100_000) })
    case 'number':
      return fc.double({ min: schema.minimum ?? (schema.exclusiveMinimum === undefined ? -1000 : schema.exclusiveMinimum + 0.01), max: Math.min(schema.maximum ?? 1000, 1000), noNaN: true })
    case 'string':
      return fc.oneof(fc.string({ unit: 'binary', minLength: schema.minLength ?? 0, maxLength: Math.min(schema.maxLength ?? 40, 40) }), fc.constantFrom('true', 'exit 3', 'alpine:latest', 'a', '/', '..%2f'))
    case 'array':
      return fc.array(schema.items === undefined ? fc.jsonValue() : valueOf(schema.items), { minLength: schema.minItems ?? 0, maxLength: Math.min(schema.maxItems ?? 4, 4) })
    case 'object': {
      if (schema.patternProperties !== undefined) return fc.dictionary(fc.string({ maxLength: 10 }), valueOf(Object.values(schema.patternProperties)[0]), { maxKeys: 4 })
      const properties = Object.entries(schema.properties ?? {})
      return fc.record(Object.fromEntries(properties.map(([name, inner]) => [name, valueOf(inner)])), { requiredKeys: schema.required ?? [] })
    }
    default:
      return fc.jsonValue({ maxDepth: 2 })
  }
}

/** A valid body in which some fields became something else. */
function mutated(schema: Json): fc.Arbitrary<unknown> {
  return fc.tuple(valueOf(schema), fc.array(fc.tuple(fc.nat(), fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constantFrom(-1, 0, 1e308, 2 ** 53, '', '\0', [], {}, null, '__proto__', [[[]]], { __proto__: null })))), fc.boolean()).map(([body, changes, drop]) => {
    if (typeof body !== 'object' || body === null) return body
    const copy: Record<string, unknown> = { ...body }
    for (const [index, value] of changes) {
      const keys = [...Object.keys(schema.properties ?? {}), 'constructor', 'surprise']
      copy[keys[index % keys.length] ?? 'x'] = value
    }
    if (drop) delete copy[Object.keys(copy)[0] ?? '']
    return copy
  })
}

const ids = fc.oneof(fc.constantFrom('x', '00000000-0000-4000-8000-000000000000', '%00', '%2e%2e%2fetc', '..', 'constructor', 'a'.repeat(300)), fc.string({ unit: 'binary', maxLength: 20 }).map(encode))

function encode(text: string): string {
  try {
    return encodeURIComponent(text)
  } catch {
    return 'lone-surrogate'
  }
}

function requestOf(operation: Operation): fc.Arbitrary<{ readonly path: string; readonly init: RequestInit }> {
  const query = (operation.spec.parameters ?? []).filter((parameter: Json) => parameter.in === 'query')
  const values = fc.tuple(...query.map((parameter: Json) => fc.option(fc.oneof(valueOf(parameter.schema), fc.string({ maxLength: 10 })), { nil: undefined })))
  const body = operation.spec.requestBody?.content?.['application/json']?.schema
  const bodies = body === undefined ? fc.option(fc.jsonValue({ maxDepth: 2 }), { nil: undefined }) : fc.oneof(valueOf(body), mutated(body), fc.jsonValue())
  return fc.tuple(ids, values, bodies, fc.boolean()).map(([id, given, made, tame]) => {
    const payload = tame ? tamed(made) : made
    const search = query.flatMap((parameter: Json, index: number) => (given[index] === undefined ? [] : [`${parameter.name}=${encode(String(given[index]))}`])).join('&')
    const path = `${operation.path.replace('{id}', id === '' || id === '.' || id === '..' ? 'x' : id)}${search === '' ? '' : `?${search}`}`
    const hasBody = operation.method !== 'GET' && payload !== undefined
    return { path, init: { method: operation.method, ...(hasBody && { headers: { 'content-type': 'application/json' }, body: JSON.stringify(bounded(payload)) }) } }
  })
}

/** Without the fields that ask for what a machine in memory does not have, so that half of the valid bodies really run. */
function tamed(payload: unknown): unknown {
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) return payload
  const wild = ['runtime', 'isolation', 'mode', 'image', 'user', 'working_dir', 'instance_id', 'snapshot_id', 'branch_from', 'stdin', 'stdin_base64', 'limits', 'network', 'env_vars']
  return Object.fromEntries(Object.entries(payload).filter(([key]) => !wild.includes(key)))
}

/** Keeps commands short-lived and the in-memory machine small: the subject is the gateway. */
function bounded(payload: unknown): unknown {
  if (typeof payload !== 'object' || payload === null || Array.isArray(payload)) return payload
  const { timeout_ms: timeoutMs, count, path } = payload as Record<string, unknown>
  return {
    ...payload,
    // Import and build read files of the host.
    ...(typeof path === 'string' && { path: `/nonexistent/${path}` }),
    ...(typeof timeoutMs === 'number' && timeoutMs > 300 && { timeout_ms: 300 }),
    ...(typeof count === 'number' && count > 3 && { count: 3 }),
  }
}

async function check(operation: Operation, path: string, init: RequestInit): Promise<void> {
  const response = await rig.fetch(path, { ...init, signal: AbortSignal.timeout(20_000) })
  const text = await response.text()
  const where = `${operation.method} ${path} ${typeof init.body === 'string' ? init.body.slice(0, 300) : ''} → ${response.status} ${text.slice(0, 300)}`
  if (response.status >= 500) expect(EXPECTED_5XX.has(response.status), where).toBe(true) // I1
  if (!(response.headers.get('content-type') ?? '').includes('application/json')) return
  const answer: unknown = JSON.parse(text)
  if (response.status >= 400) expect(answer, where).toMatchObject({ error: { code: expect.any(String), message: expect.any(String) }, request_id: expect.any(String) })
  const schema = operation.spec.responses?.[response.status]?.content?.['application/json']?.schema
  // A path that an id turned into another path (or none) is answered by that other route.
  if (response.status !== 404 && response.status !== 405) expect(schema, `${where}: the document names no such answer`).toBeDefined()
  if (schema !== undefined && !ajv.validate(schema, answer)) expect.fail(`${where}: ${ajv.errorsText(ajv.errors)}`) // I2
}

describe('requests made from the OpenAPI document', () => {
  it('never get a 5xx that is not typed and expected, and always what the document promises', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 0, max: 10_000 }).chain((pick) => {
          const operation = operations[pick % operations.length] as Operation
          return requestOf(operation).map((request) => ({ operation, ...request }))
        }),
        ({ operation, path, init }) => check(operation, path, init),
      ),
      { numRuns: RUNS, interruptAfterTimeLimit: 90_000, markInterruptAsFailure: false },
    )
  }, 120_000)

  it('leave a gateway that works', async () => {
    expect((await rig.get('/health')).body.status).toBe('healthy')
    expect((await rig.post('/api/v1/execute', { command: 'echo alive' })).body['stdout']).toBe('alive\n')
  })

  it('that are not JSON at all are refused with 4xx', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.constantFrom('application/json', 'text/plain', '', 'application/json; charset=utf-16', 'a/b'), async (bytes, type) => {
        const response = await rig.fetch('/api/v1/execute', { method: 'POST', headers: type === '' ? {} : { 'content-type': type }, body: Buffer.from(bytes) })
        const text = await response.text()
        expect(response.status, text).toBeGreaterThanOrEqual(400)
        expect(response.status, text).toBeLessThan(500)
        expect(JSON.parse(text)).toMatchObject({ error: { code: expect.stringMatching(/^request\//) } })
      }),
      { numRuns: RUNS },
    )
  }, 60_000)
})
