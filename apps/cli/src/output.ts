/** What the commands print: people on a terminal, lines without one, JSON when asked. */
import { FaasError } from '@faas-platform/core'
import { FaaSError } from '@faas-platform/sdk'

export interface Streams {
  readonly out: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number }
  readonly err: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number }
}

type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow' | 'cyan'
const SGR: Record<Style, string> = { bold: '1', dim: '2', red: '31', green: '32', yellow: '33', cyan: '36' }

export class Output {
  readonly #colour: { readonly out: boolean; readonly err: boolean }

  constructor(
    readonly streams: Streams,
    readonly json: boolean,
    environment: Readonly<Record<string, string | undefined>>,
  ) {
    const wanted = !json && (environment['NO_COLOR'] ?? '') === '' && environment['TERM'] !== 'dumb'
    this.#colour = { out: wanted && streams.out.isTTY === true, err: wanted && streams.err.isTTY === true }
  }

  /** For standard output, or for the stream that it is said to go to. */
  style(style: Style, text: string, stream: 'out' | 'err' = 'out'): string {
    return this.#colour[stream] ? `\u001b[${SGR[style]}m${text}\u001b[0m` : text
  }

  line(text = ''): void {
    this.streams.out.write(`${text}\n`)
  }

  note(text: string): void {
    this.streams.err.write(`${text}\n`)
  }

  /** One value: as JSON when asked, else as `human` says. */
  value(value: unknown, human: () => void): void {
    if (this.json) this.line(JSON.stringify(value, null, 2))
    else human()
  }

  /** Columns padded to their widest cell; on a terminal the last one is cut at its edge. */
  table(headers: readonly string[], rows: readonly (readonly string[])[]): void {
    const widths = headers.map((header, column) => Math.max(header.length, ...rows.map((row) => row[column]?.length ?? 0)))
    const { isTTY, columns } = this.streams.out
    const width = isTTY === true && columns !== undefined ? columns : Number.POSITIVE_INFINITY
    const format = (cells: readonly string[]): string => {
      const line = cells.map((cell, column) => (column === cells.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  ').trimEnd()
      return line.length > width ? `${line.slice(0, width - 1)}…` : line
    }
    this.line(this.style('dim', format(headers)))
    for (const row of rows) this.line(format(row))
  }

  /** A failure on stderr: what, why, how to fix. */
  failure(thrown: unknown): void {
    const known = thrown instanceof FaasError || thrown instanceof FaaSError ? thrown : undefined
    if (this.json) {
      const error = known === undefined ? { code: 'internal/bug', message: String(thrown) } : { code: known.code, message: known.message, hint: known.hint, details: known.details }
      this.streams.err.write(`${JSON.stringify({ error })}\n`)
      return
    }
    this.note(`${this.style('red', 'error:', 'err')} ${known?.message ?? (thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown))}`)
    const issues = known?.details?.['issues']
    if (Array.isArray(issues) && issues.length > 1) for (const issue of issues) this.note(`  - ${issueText(issue)}`)
    const hint = known === undefined ? 'This is a bug of faas; please report it with the lines above.' : hintOf(known)
    if (hint !== undefined) this.note(`${this.style('cyan', 'hint:', 'err')}  ${hint}`)
    if (known !== undefined) this.note(this.style('dim', `code:  ${known.code}`, 'err'))
  }
}

/** What helps at a command line, where the gateway's own hint speaks of HTTP. */
function hintOf(error: FaasError | FaaSError): string | undefined {
  if (error.code.startsWith('auth/')) return 'Set FAAS_API_KEY; `faas keys create` on the machine of the gateway makes a key.'
  return error.hint
}

function issueText(issue: unknown): string {
  if (typeof issue === 'object' && issue !== null && 'message' in issue) return 'path' in issue ? `${String(issue.path)} ${String(issue.message)}` : String(issue.message)
  return typeof issue === 'string' ? issue : JSON.stringify(issue)
}
