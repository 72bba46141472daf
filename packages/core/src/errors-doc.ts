/** The page of error codes, generated from the table, so that documentation and code can not part. */
import { ERROR_CODES, ERROR_KINDS, type ErrorKind } from './errors.js'

const INTRODUCTION = `# Errors

<!-- Generated from packages/core/src/errors.ts; \`npx vitest run packages/core -u\` writes it again. -->

Every failure has a \`code\` that stays the same over versions, a \`kind\` that says what sort of failure it is, a \`message\`, and where there is something to do about it a \`hint\`. Over HTTP the body is \`{"error": {"code", "message", "hint", "details"}, "request_id"}\`; the kind decides the status. *Retryable* means that the same call may succeed later without a change by the caller.

A command that ends with a non-zero exit code is a result, not an error.
`

export function renderErrorDocs(): string {
  const sections = ERROR_KINDS.map(section).filter((text) => text !== '')
  return `${INTRODUCTION}\n${sections.join('\n')}`
}

function section(kind: ErrorKind): string {
  const rows = Object.entries(ERROR_CODES).filter(([, entry]) => entry.kind === kind)
  if (rows.length === 0) return ''
  const lines = rows.map(([code, entry]) => `| \`${code}\` | ${'retryable' in entry ? 'yes' : ''} | ${entry.doc} |`)
  return `## \`${kind}\`\n\n| Code | Retryable | Meaning |\n|---|---|---|\n${lines.join('\n')}\n`
}
