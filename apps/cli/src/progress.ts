/** Progress of long work: a bar that redraws on a terminal, a line per finished part elsewhere. */
import { formatBytes } from '@faas-platform/core'
import type { Output } from './output.js'

const BAR_WIDTH = 24
const REDRAW_MS_MIN = 80

export interface ProgressPart {
  readonly name: string
  readonly phase: string
  readonly currentBytes: number
  readonly totalBytes: number | null
}

export class Progress {
  readonly #parts = new Map<string, ProgressPart>()
  #drawnLines = 0
  #drawnAtMs = 0

  constructor(private readonly output: Output) {}

  update(part: ProgressPart): void {
    const before = this.#parts.get(part.name)
    this.#parts.set(part.name, part)
    if (this.output.json) return
    if (this.output.streams.err.isTTY !== true) {
      if (part.phase === 'done' && before?.phase !== 'done') this.output.note(`${part.name}: done (${formatBytes(part.currentBytes)})`)
      return
    }
    if (part.phase !== 'done' && performance.now() - this.#drawnAtMs < REDRAW_MS_MIN) return
    this.#draw()
  }

  /** Leaves the last state on the screen. */
  end(): void {
    if (!this.output.json && this.output.streams.err.isTTY === true) this.#draw()
    this.#drawnLines = 0
  }

  #draw(): void {
    const lines = [...this.#parts.values()].map((part) => `\u001b[2K${part.name.padEnd(20).slice(0, 20)} ${bar(part)} ${part.phase}`)
    const up = this.#drawnLines > 0 ? `\u001b[${this.#drawnLines}A` : ''
    this.output.streams.err.write(`${up}${lines.join('\n')}\n`)
    this.#drawnLines = lines.length
    this.#drawnAtMs = performance.now()
  }
}

function bar(part: ProgressPart): string {
  if (part.phase === 'done') return `[${'█'.repeat(BAR_WIDTH)}] ${formatBytes(part.currentBytes)}`
  if (part.totalBytes === null || part.totalBytes === 0) return `[${'·'.repeat(BAR_WIDTH)}] ${formatBytes(part.currentBytes)}`
  const filled = Math.min(BAR_WIDTH, Math.round((part.currentBytes / part.totalBytes) * BAR_WIDTH))
  return `[${'█'.repeat(filled)}${'·'.repeat(BAR_WIDTH - filled)}] ${formatBytes(part.currentBytes)} of ${formatBytes(part.totalBytes)}`
}
