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
  readonly #colour: boolean

  constructor(
    readonly streams: Streams,
    readonly json: boolean,
    environment: Readonly<Record<string, string | undefined>>,
  ) {
    this.#colour = !json && streams.out.isTTY === true && (environment['NO_COLOR'] ?? '') === '' && environment['TERM'] !== 'dumb'
  }

  style(style: Style, text: string): string {
    return this.#colour ? `\u001b[${SGR[style]}m${text}\u001b[0m` : text
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

  /** Columns padded to their widest cell; the last one is left as it is. */
  table(headers: readonly string[], rows: readonly (readonly string[])[]): void {
    const widths = headers.map((header, column) => Math.max(header.length, ...rows.map((row) => row[column]?.length ?? 0)))
    const format = (cells: readonly string[]): string =>
      cells.map((cell, column) => (column === cells.length - 1 ? cell : cell.padEnd(widths[column] ?? 0))).join('  ').trimEnd()
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
    this.note(`${this.style('red', 'error:')} ${known?.message ?? (thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown))}`)
    if (known?.hint !== undefined) this.note(`${this.style('cyan', 'hint:')}  ${known.hint}`)
    const issues = known?.details?.['issues']
    if (Array.isArray(issues)) for (const issue of issues) this.note(`  - ${typeof issue === 'string' ? issue : JSON.stringify(issue)}`)
    if (known !== undefined) this.note(this.style('dim', `code:  ${known.code}`))
  }
}
