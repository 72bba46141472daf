/** Text that must not reach a log, an error or a dump: every way of printing it gives `[redacted]`. */
import { inspect } from 'node:util'

const REDACTED = '[redacted]'

export class Secret {
  readonly #text: string

  constructor(text: string) {
    this.#text = text
  }

  /** The text itself; call it only where it is used. */
  reveal(): string {
    return this.#text
  }

  toString(): string {
    return REDACTED
  }

  toJSON(): string {
    return REDACTED
  }

  [inspect.custom](): string {
    return REDACTED
  }
}
