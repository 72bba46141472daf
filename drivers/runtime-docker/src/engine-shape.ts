/** Reads fields of the engine's JSON, which differs between versions: absent and null are the same, a wrong type is an error. */
import { EngineError } from './engine-error.js'

export type Shape = Readonly<Record<string, unknown>>

export function shape(value: unknown, what: string): Shape {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) wrong(what, 'an object')
  return value as Shape
}

/** A nested object; empty when absent. */
export function sub(from: Shape, name: string): Shape {
  const value = from[name]
  return value === undefined || value === null ? {} : shape(value, name)
}

export function text(from: Shape, name: string): string {
  const value = from[name]
  if (typeof value !== 'string') wrong(name, 'a text')
  return value
}

export function optionalText(from: Shape, name: string): string | undefined {
  const value = from[name]
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') wrong(name, 'a text')
  return value
}

export function number(from: Shape, name: string): number {
  const value = from[name]
  if (typeof value !== 'number') wrong(name, 'a number')
  return value
}

export function optionalNumber(from: Shape, name: string): number | undefined {
  const value = from[name]
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'number') wrong(name, 'a number')
  return value
}

export function flag(from: Shape, name: string): boolean {
  return from[name] === true
}

export function list(from: Shape, name: string): readonly unknown[] {
  const value = from[name]
  if (value === undefined || value === null) return []
  if (!Array.isArray(value)) wrong(name, 'a list')
  return value as readonly unknown[]
}

export function texts(from: Shape, name: string): readonly string[] {
  return list(from, name).map((entry) => (typeof entry === 'string' ? entry : wrong(name, 'a list of texts')))
}

/** A string → string map; empty when absent. */
export function textMap(from: Shape, name: string): Readonly<Record<string, string>> {
  const map = sub(from, name)
  for (const value of Object.values(map)) if (typeof value !== 'string') wrong(name, 'a map of texts')
  return map as Readonly<Record<string, string>>
}

function wrong(what: string, wanted: string): never {
  throw new EngineError('protocol', `The engine's answer has no ${wanted} in "${what}".`)
}
