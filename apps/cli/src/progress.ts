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
      if (part.phase !== before?.phase) this.output.note(`${part.name}: ${part.phase}${part.phase === 'waiting' ? '' : ` (${amount(part)})`}`)
      return
    }
    if (part.phase !== 'done' && performance.now() - this.#drawnAtMs < REDRAW_MS_MIN) return
    this.#draw()
  }

  /** Leaves the last state on the screen. Idempotent. */
  end(): void {
    if (this.#drawnLines > 0) this.#draw()
    this.#drawnLines = 0
  }

  #draw(): void {
    const lines = [...this.#parts.values()].map((part) => `\u001b[2K${`${part.name.padEnd(14).slice(0, 14)} ${bar(part)} ${part.phase}`.slice(0, (this.output.streams.err.columns ?? 100) - 1)}`)
    const up = this.#drawnLines > 0 ? `\u001b[${this.#drawnLines}A` : ''
    this.output.streams.err.write(`${up}${lines.join('\n')}\n`)
    this.#drawnLines = lines.length
    this.#drawnAtMs = performance.now()
  }
}

function bar(part: ProgressPart): string {
  const share = part.phase === 'done' ? 1 : part.totalBytes === null || part.totalBytes === 0 ? 0 : Math.min(1, part.currentBytes / part.totalBytes)
  const filled = Math.round(share * BAR_WIDTH)
  return `[${'█'.repeat(filled)}${'·'.repeat(BAR_WIDTH - filled)}] ${amount(part)}`
}

function amount({ phase, currentBytes, totalBytes }: ProgressPart): string {
  return phase === 'done' || totalBytes === null || totalBytes === 0 ? formatBytes(currentBytes) : `${formatBytes(currentBytes)} of ${formatBytes(totalBytes)}`
}
