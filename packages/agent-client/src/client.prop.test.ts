/** A hostile guest against the client: whatever it sends ends in a typed error, at once, and within bounds. */
import { Duplex } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FaasError } from '@faas-platform/core'
import { AgentClient } from './agent-client.js'
import type { AgentExec } from './agent-exec.js'
import { FrameReader } from './frame-reader.js'
import { encodeHeader, FieldWriter, HEADER_BYTES, KIND, MAX_PAYLOAD_BYTES, MAX_REPLY_BYTES } from './wire.js'

function frame(kind: number, stream: number, payload: Uint8Array, flags = 0, length = payload.length): Buffer {
  const head = Buffer.alloc(HEADER_BYTES)
  encodeHeader(head, kind, stream, length, flags)
  return Buffer.concat([head, payload])
}

const READY = frame(KIND.ready, 0, new FieldWriter()
  .u16(1, 1).u64(2, 63).u32(3, 65_536).u32(4, 8_388_608).u32(5, 1024).u32(6, 262_144).text(7, '0').u32(8, 1).text(9, '').u64(10, 0).u32(11, 262_144)
  .finish())
const STARTED = frame(KIND.started, 1, new FieldWriter().u32(1, 1).u32(2, 2).finish())

/** A guest that a test plays by hand. */
class FakeGuest extends Duplex {
  received = Buffer.alloc(0)
  override _read(): void {}
  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.received = Buffer.concat([this.received, chunk])
    done()
  }
  say(...bytes: Uint8Array[]): void {
    for (const part of bytes) this.push(part)
  }
}

async function greeted(): Promise<{ guest: FakeGuest; client: AgentClient }> {
  const guest = new FakeGuest()
  const connecting = AgentClient.connect(guest)
  guest.say(READY)
  return { guest, client: await connecting }
}

async function running(onOutput: (bytes: Uint8Array) => void | Promise<void> = () => undefined): Promise<{ guest: FakeGuest; client: AgentClient; exec: AgentExec }> {
  const { guest, client } = await greeted()
  const starting = client.exec({ argv: ['x'], env: {} }, { onOutput: (_stream, bytes) => onOutput(bytes) })
  guest.say(STARTED)
  return { guest, client, exec: await starting }
}

async function outcome(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'ok', (error: unknown) => (error instanceof FaasError ? error.code : `untyped: ${String(error)}`))
}

const anyFrame = fc.oneof(
  fc.tuple(fc.constantFrom(...Object.values(KIND)), fc.integer({ min: 0, max: 3 }), fc.uint8Array({ maxLength: 80 }), fc.constantFrom(0, 0, 1))
    .map(([kind, stream, payload, flags]) => frame(kind, stream, payload, flags)),
  fc.tuple(fc.constantFrom(...Object.values(KIND)), fc.integer({ min: 0, max: 3 }), fc.array(fc.tuple(fc.integer({ min: 1, max: 12 }), fc.constantFrom(1, 2, 4, 8)), { maxLength: 12 }))
    .map(([kind, stream, list]) => frame(kind, stream, list.reduce((w, [tag, size]) => w.bytes(tag, new Uint8Array(size).fill(1)), new FieldWriter()).finish())),
  fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
)

describe('the client against a hostile guest', () => {
  it('random bytes instead of a greeting are a typed error', async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ minLength: 12, maxLength: 300 }), async (bytes) => {
      const guest = new FakeGuest()
      const connecting = AgentClient.connect(guest, { timeoutMs: 1_000 })
      guest.say(bytes)
      guest.push(null)
      expect(await outcome(connecting)).toMatch(/^agent\/(protocol-error|disconnected)$/)
    }), { numRuns: 300 })
  })

  it('any frames while a command runs settle everything with typed errors', async () => {
    await fc.assert(fc.asyncProperty(fc.array(anyFrame, { minLength: 1, maxLength: 8 }), async (frames) => {
      const { guest, client, exec } = await running()
      const pending = [exec.wait(), client.ping(), client.stat('/x'), exec.kill('SIGTERM')].map(outcome)
      guest.say(...frames)
      guest.push(null)
      for (const result of await Promise.all(pending)) {
        expect(result).not.toMatch(/untyped|internal\/bug/)
      }
      expect(await client.closed).toBeInstanceOf(FaasError)
    }), { numRuns: 500 })
  })

  it.each<[string, (guest: FakeGuest) => void]>([
    ['a stream that is not open', (g) => g.say(frame(KIND.stdout, 77, Buffer.from('x')))],
    ['an exit on a stream that is not open', (g) => g.say(frame(KIND.exit, 77, new Uint8Array()))],
    ['a frame larger than the limit', (g) => g.say(frame(KIND.stdout, 1, new Uint8Array(), 0, MAX_PAYLOAD_BYTES + 1))],
    ['unknown flags', (g) => g.say(frame(KIND.stdout, 1, Buffer.from('x'), 2))],
    ['output beyond its credit', (g) => g.say(...Array.from({ length: 9 }, () => frame(KIND.stdout, 1, Buffer.alloc(MAX_PAYLOAD_BYTES))))],
    ['a second start', (g) => g.say(STARTED)],
    ['a malformed exit', (g) => g.say(frame(KIND.exit, 1, Buffer.from([1, 2, 3])))],
    ['a window for no stdin beyond measure', (g) => g.say(frame(KIND.window, 1, Buffer.from([1, 0, 0, 0, 1])))],
    ['a second greeting', (g) => g.say(READY)],
    ['file data on a command', (g) => g.say(frame(KIND.data, 1, Buffer.from('x')))],
    ['a reply without end', (g) => g.say(...Array.from({ length: MAX_REPLY_BYTES / MAX_PAYLOAD_BYTES + 1 }, () => frame(KIND.exit, 1, Buffer.alloc(MAX_PAYLOAD_BYTES), 1)))],
    ['a spanning message that is interrupted', (g) => g.say(frame(KIND.exit, 1, Buffer.from('x'), 1), frame(KIND.stdout, 1, Buffer.from('x')))],
  ])('%s is a protocol error and the connection is destroyed', async (_name, attack) => {
    // The sink never finishes: no credit comes back.
    const { guest, client, exec } = await running(() => new Promise<void>(() => undefined))
    attack(guest)
    expect(await outcome(exec.wait())).toBe('agent/protocol-error')
    expect(await client.closed).toMatchObject({ code: 'agent/protocol-error' })
    expect(guest.destroyed).toBe(true)
    await expect(client.ping()).rejects.toMatchObject({ code: 'agent/protocol-error' })
  })

  it('a guest that says nothing is a timeout', async () => {
    const guest = new FakeGuest()
    await expect(AgentClient.connect(guest, { timeoutMs: 30 })).rejects.toMatchObject({ code: 'agent/timeout' })
    const { client } = await greeted()
    await expect(client.ping({ timeoutMs: 30 })).rejects.toMatchObject({ code: 'agent/timeout' })
  })

  it('a late answer to a call that timed out is dropped', async () => {
    const { guest, client } = await greeted()
    await expect(client.ping({ timeoutMs: 20 })).rejects.toMatchObject({ code: 'agent/timeout' })
    guest.say(frame(KIND.pong, 1, new FieldWriter().bytes(1, new Uint8Array()).u64(2, 0).u32(3, 0).u64(4, 0).finish()))
    const ping = client.ping()
    guest.say(frame(KIND.pong, 2, new FieldWriter().bytes(1, new Uint8Array()).u64(2, 0).u32(3, 5).u64(4, 0).finish()))
    expect(await ping).toMatchObject({ execsLive: 5 })
  })

  it('error text from the guest is cut and cleaned', async () => {
    const { guest, client } = await greeted()
    const stat = client.stat('/x')
    guest.say(frame(KIND.error, 1, new FieldWriter().u16(1, 32).u32(2, 2).text(3, `\u001b[31m${'x'.repeat(5_000)}`).finish()))
    const error = await stat.then(() => null, (caught: FaasError) => caught)
    expect(error?.message.length).toBeLessThan(600)
    expect(error?.message).not.toContain('\u001b')
  })
})

describe('the frame reader', () => {
  it('gives the same result however the bytes are cut', () => {
    fc.assert(fc.property(fc.array(anyFrame, { maxLength: 6 }), fc.integer({ min: 1, max: 50 }), (frames, step) => {
      const bytes = Buffer.concat(frames)
      const read = (size: number): unknown => {
        const log: string[] = []
        const data = new Map<string, string>()
        const reader = new FrameReader({
          onMessage: (kind, stream, payload) => log.push(`${kind} ${stream} ${Buffer.from(payload).toString('hex')}`),
          onData: (kind, stream, part) => {
            const key = `${log.length} ${kind} ${stream}`
            data.set(key, (data.get(key) ?? '') + Buffer.from(part).toString('hex'))
          },
        })
        let fault: string | null = null
        for (let at = 0; at < bytes.length && fault === null; at += size) fault = reader.push(bytes.subarray(at, at + size))
        return { log, data: [...data], fault }
      }
      expect(read(step)).toEqual(read(1_000_000))
    }), { numRuns: 500 })
  })
})
