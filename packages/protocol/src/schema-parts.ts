/** Building blocks of the wire schemas. */
import type { Static, TSchema } from 'typebox'
import Type from 'typebox'

/** A request field that may be left out or sent as null; both mean "the default". */
export function maybe<T extends TSchema>(schema: T, description: string) {
  return Type.Optional(Type.Union([schema, Type.Null()], { description }))
}

/** A reply field that is always there and may be null. */
export function nullable<T extends TSchema>(schema: T, description?: string) {
  return Type.Union([schema, Type.Null()], description === undefined ? {} : { description })
}

export function oneOf<const T extends readonly string[]>(values: T, options: { readonly description?: string } = {}) {
  return Type.Unsafe<T[number]>({ type: 'string', enum: [...values], ...options })
}

/** RFC 3339 in UTC with milliseconds. */
export const Timestamp = Type.String({ format: 'date-time' })

/** The format has four digits for the year: later moments are told as its end. */
const LAST_MS = Date.UTC(9999, 11, 31, 23, 59, 59, 999)

/** The longest life that a key or an instance may be given: ten years. */
export const LIFETIME_MS_MAX = 10 * 366 * 24 * 3_600_000

export function timestamp(ms: number): string {
  return new Date(Math.min(ms, LAST_MS)).toISOString()
}

export function timestampOrNull(ms: number | null): string | null {
  return ms === null ? null : timestamp(ms)
}

export const TextMap = Type.Record(Type.String(), Type.String())

export const EmptyBody = Type.Object({}, { additionalProperties: true })
export type EmptyBody = Static<typeof EmptyBody>
