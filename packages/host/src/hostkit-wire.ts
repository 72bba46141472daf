/** Frames of the hostkit helper; the layout is documented in `agent/src/hostkit/wire.rs`. */

/** One operation and its arguments. Numbers travel as decimal text. */
export type Step = readonly [op: string, ...args: readonly (string | number | Uint8Array)[]]

export interface StepResult {
  readonly micros: number
  readonly text: string
}

export type HostKitMessage =
  | { readonly type: 'response'; readonly id: number; readonly failed: boolean; readonly results: readonly StepResult[] }
  | { readonly type: 'event'; readonly json: string }

export function encodeRequest(id: number, steps: readonly Step[]): Buffer {
  const parts: Buffer[] = []
  const u32 = (n: number): void => {
    const bytes = Buffer.allocUnsafe(4)
    bytes.writeUInt32LE(n)
    parts.push(bytes)
  }
  u32(id)
  u32(steps.length)
  for (const step of steps) {
    u32(step.length)
    for (const field of step) {
      const bytes = field instanceof Uint8Array ? Buffer.from(field.buffer, field.byteOffset, field.byteLength) : Buffer.from(String(field))
      u32(bytes.length)
      parts.push(bytes)
    }
  }
  const body = Buffer.concat(parts)
  const head = Buffer.allocUnsafe(4)
  head.writeUInt32LE(body.length)
  return Buffer.concat([head, body])
}

/** Cuts a byte stream into messages. */
export class HostKitReader {
  #pending: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): HostKitMessage[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk])
    const messages: HostKitMessage[] = []
    while (this.#pending.length >= 4) {
      const length = this.#pending.readUInt32LE(0)
      if (this.#pending.length < 4 + length) break
      messages.push(decode(this.#pending.subarray(4, 4 + length)))
      this.#pending = this.#pending.subarray(4 + length)
    }
    return messages
  }
}

function decode(body: Buffer): HostKitMessage {
  const id = body.readUInt32LE(0)
  if (id === 0) return { type: 'event', json: body.toString('utf8', 8, 8 + body.readUInt32LE(4)) }
  const results: StepResult[] = []
  const count = body.readUInt32LE(5)
  let at = 9
  for (let n = 0; n < count; n++) {
    const length = body.readUInt32LE(at + 4)
    results.push({ micros: body.readUInt32LE(at), text: body.toString('utf8', at + 8, at + 8 + length) })
    at += 8 + length
  }
  return { type: 'response', id, failed: body.readUInt8(4) !== 0, results }
}
