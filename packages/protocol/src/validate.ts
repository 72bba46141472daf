/**
 * Checks bodies against their schemas and says everything that is wrong with them.
 *
 * I1. A large hostile body costs one error, a small one lists all: the first pass stops at the first problem.
 * I2. No more than `ISSUES_MAX` issues are reported.
 */
import { FaasError } from '@faas-platform/core'
import type { ErrorObject, ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import type { TSchema } from 'typebox'

export interface RequestIssue {
  /** JSON pointer into the body; empty for the body itself. */
  readonly path: string
  readonly message: string
}

const ISSUES_MAX = 50
/** Bodies up to this many characters of JSON get every issue listed. */
const THOROUGH_CHARS_MAX = 64 * 1024

const FORMATS = { 'date-time': true } as const
const quick = new Ajv2020({ strict: false, formats: FORMATS, verbose: true })
const thorough = new Ajv2020({ strict: false, formats: FORMATS, verbose: true, allErrors: true })

export interface BodyCheck<T> {
  /**
   * @returns The body with known camelCase keys respelt.
   * @throws FaasError `request/invalid`, `runtime/unknown`
   */
  check(body: unknown): T
}

/** Compiles once; keep the result. */
export function bodyCheck<T>(schema: TSchema): BodyCheck<T> {
  const first = quick.compile<T>(schema)
  let all: ValidateFunction<T> | undefined
  const aliases = camelAliases(schema)
  return {
    check(body) {
      const respelt = respell(body, aliases)
      if (first(respelt)) return respelt
      let errors = first.errors ?? []
      if (isSmall(respelt)) {
        all ??= thorough.compile<T>(schema) // I1
        all(respelt)
        errors = all.errors ?? errors
      }
      throw invalidRequest(issuesOf(errors))
    },
  }
}

function isSmall(body: unknown): boolean {
  try {
    return JSON.stringify(body ?? null).length <= THOROUGH_CHARS_MAX
  } catch (error) {
    // Nested deeper than the stack reaches: that is not small.
    if (error instanceof RangeError) return false
    throw error
  }
}

/** @returns The error for a list of issues; one that is only about the runtime's name has its own code. */
export function invalidRequest(issues: readonly RequestIssue[]): FaasError {
  const shown = issues.slice(0, ISSUES_MAX)
  const only = shown.length === 1 ? shown[0] : undefined
  const text = shown.slice(0, 5).map((issue) => (issue.path === '' ? `the body ${issue.message}` : `${issue.path} ${issue.message}`)).join('; ')
  return new FaasError(only?.path === '/runtime' ? 'runtime/unknown' : 'request/invalid', {
    message: `The request is not valid: ${text}${issues.length > 5 ? `; and ${issues.length - 5} more` : ''}.`,
    hint: 'GET /docs describes every field.',
    details: { issues: shown },
  })
}

function issuesOf(errors: readonly ErrorObject[]): RequestIssue[] {
  const dropped = new Set<ErrorObject>()
  for (const union of errors) {
    if (union.keyword !== 'anyOf') continue
    // Each branch that failed reports its own reason. Those inside the value tell more than the
    // union's own error; those about the value itself tell less.
    const inner = errors.filter((error) => error.schemaPath.startsWith(`${union.schemaPath}/`))
    const deeper = new Set(inner.filter((error) => pointerOf(error).length > union.instancePath.length))
    if (deeper.size > 0) dropped.add(union)
    for (const error of inner) if (!deeper.has(error)) dropped.add(error)
  }
  const issues = new Map<string, RequestIssue>()
  for (const error of errors) {
    if (dropped.has(error)) continue
    const issue = { path: pointerOf(error), message: messageOf(error) }
    issues.set(`${issue.path} ${issue.message}`, issue)
  }
  return issues.size === 0 ? [{ path: '', message: 'does not match the schema' }] : [...issues.values()]
}

function pointerOf(error: ErrorObject): string {
  const missing: unknown = error.keyword === 'required' ? (error.params as { missingProperty?: unknown }).missingProperty : undefined
  return typeof missing === 'string' ? `${error.instancePath}/${missing}` : error.instancePath
}

function messageOf(error: ErrorObject): string {
  if (error.keyword === 'required') return 'is missing'
  if (error.keyword === 'enum') return `must be one of ${(error.schema as readonly unknown[]).map((value) => JSON.stringify(value)).join(', ')}`
  if (error.keyword === 'anyOf') return `must be ${describeUnion(error.parentSchema)}`
  return error.message ?? 'is not valid'
}

function describeUnion(schema: unknown): string {
  const parts = isRecord(schema) && Array.isArray(schema['anyOf']) ? (schema['anyOf'] as unknown[]) : []
  if (isRecord(schema) && typeof schema['title'] === 'string') return schema['title']
  return parts.map(describeType).join(' or ')
}

function describeType(schema: unknown): string {
  if (!isRecord(schema)) return 'something else'
  if (typeof schema['title'] === 'string') return schema['title']
  if (Array.isArray(schema['enum'])) return `one of ${schema['enum'].map((value) => JSON.stringify(value)).join(', ')}`
  if (Array.isArray(schema['anyOf'])) return describeUnion(schema)
  const bounds = [
    typeof schema['minimum'] === 'number' ? `at least ${schema['minimum']}` : '',
    typeof schema['exclusiveMinimum'] === 'number' ? `above ${schema['exclusiveMinimum']}` : '',
    typeof schema['maximum'] === 'number' ? `at most ${schema['maximum']}` : '',
    typeof schema['minLength'] === 'number' ? 'not empty' : '',
    typeof schema['maxLength'] === 'number' ? `at most ${schema['maxLength']} characters` : '',
    typeof schema['maxItems'] === 'number' ? `at most ${schema['maxItems']} items` : '',
    typeof schema['maxProperties'] === 'number' ? `at most ${schema['maxProperties']} entries` : '',
  ].filter((part) => part !== '')
  const type = typeof schema['type'] === 'string' ? schema['type'] : 'something else'
  return bounds.length === 0 ? type : `${type} (${bounds.join(', ')})`
}

/** camelCase → snake_case for every known key that has two spellings. */
function camelAliases(schema: TSchema): ReadonlyMap<string, string> {
  const properties: unknown = (schema as { properties?: unknown }).properties
  const aliases = new Map<string, string>()
  for (const key of Object.keys(isRecord(properties) ? properties : {})) {
    const camel = key.replace(/_([a-z0-9])/g, (_match, letter: string) => letter.toUpperCase())
    if (camel !== key) aliases.set(camel, key)
  }
  return aliases
}

/** The original clients spread their own option names into some bodies; the snake_case spelling wins. */
function respell(body: unknown, aliases: ReadonlyMap<string, string>): unknown {
  if (!isRecord(body)) return body
  let copy: Record<string, unknown> | undefined
  for (const key of Object.keys(body)) {
    const name = aliases.get(key)
    if (name === undefined) continue
    copy ??= { ...body }
    if (copy[name] === undefined || copy[name] === null) copy[name] = body[key]
    delete copy[key]
  }
  return copy ?? body
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
