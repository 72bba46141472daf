/** Texts of the command line → values, with errors that name the option and show the right form. */
import { GIB, KIB, MIB } from '@faas-platform/core'
import { InvalidArgumentError } from 'commander'

const DURATION_MS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
const SIZE_BYTES: Readonly<Record<string, number>> = { '': MIB, k: KIB, m: MIB, g: GIB }

/** `500ms`, `30s`, `5m`, `1h`; a bare number is seconds. → ms */
export function durationMs(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
  const scale = DURATION_MS[match?.[2] ?? 's']
  const value = Number(match?.[1]) * (scale ?? Number.NaN)
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('Use a time such as 500ms, 30s, 5m or 1h.')
  return Math.round(value)
}

/** `512`, `512m`, `2g`, `64k` (binary units; a bare number is MiB) → whole MiB, at least 1. */
export function sizeMib(text: string): number {
  const match = /^(\d+(?:\.\d+)?)([kmg]?)(?:i?b)?$/i.exec(text)
  const scale = SIZE_BYTES[match?.[2]?.toLowerCase() ?? '']
  const value = (Number(match?.[1]) * (scale ?? Number.NaN)) / MIB
  if (!Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('Use a size such as 512m or 2g.')
  return Math.max(1, Math.ceil(value))
}

export function positiveNumber(text: string): number {
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0) throw new InvalidArgumentError('Use a number above 0.')
  return value
}

export function positiveInteger(text: string): number {
  const value = positiveNumber(text)
  if (!Number.isSafeInteger(value)) throw new InvalidArgumentError('Use a whole number above 0.')
  return value
}

/** Collects repeated `KEY=VALUE`; a bare `KEY` takes the value from the environment of this process. */
export function environmentPairs(environment: Readonly<Record<string, string | undefined>>) {
  return (text: string, before: Readonly<Record<string, string>>): Record<string, string> => {
    const equals = text.indexOf('=')
    const key = equals === -1 ? text : text.slice(0, equals)
    const value = equals === -1 ? environment[key] : text.slice(equals + 1)
    if (key === '' || value === undefined) throw new InvalidArgumentError('Use KEY=VALUE, or KEY of a variable that is set here.')
    return { ...before, [key]: value }
  }
}

/** Collects a repeated option. */
export function collected(text: string, before: readonly string[]): readonly string[] {
  return [...before, text]
}

/** One argument with a blank or a shell character is a shell line; anything else is an argv. */
export function commandOf(words: readonly string[]): string | readonly string[] {
  const [only, ...rest] = words
  return only !== undefined && rest.length === 0 && /[\s;&|<>$`"'(){}*?~]/.test(only) ? only : words
}
