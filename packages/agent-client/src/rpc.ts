/** A request with one answer. */
import { FaasError } from '@faas-platform/core'
import { Deferred } from './deferred.js'
import { decodeError } from './errors.js'
import type { StreamHandler } from './stream-table.js'
import { FieldMap, KIND } from './wire.js'

export class Rpc implements StreamHandler {
  readonly answer = new Deferred<FieldMap>()
  readonly #expected: number
  readonly #onEnd: () => void

  constructor(expected: number, onEnd: () => void) {
    this.#expected = expected
    this.#onEnd = onEnd
  }

  onMessage(kind: number, payload: Uint8Array): string | null {
    if (kind === KIND.error) {
      const error = decodeError(payload)
      if (error === null) return 'a malformed ERROR'
      this.#onEnd()
      this.answer.reject(error)
      return null
    }
    if (kind !== this.#expected) return 'an answer of the wrong kind'
    const fields = new FieldMap(payload)
    if (fields.malformed) return 'a malformed answer'
    this.#onEnd()
    this.answer.resolve(fields)
    return null
  }

  onData(): string | null {
    return 'data where an answer was due'
  }

  onLost(error: FaasError): void {
    this.answer.reject(error)
  }
}
