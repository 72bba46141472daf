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

export function timestamp(ms: number): string {
  return new Date(ms).toISOString()
}

export function timestampOrNull(ms: number | null): string | null {
  return ms === null ? null : timestamp(ms)
}

export const TextMap = Type.Record(Type.String(), Type.String())

export const EmptyBody = Type.Object({}, { additionalProperties: true })
export type EmptyBody = Static<typeof EmptyBody>
