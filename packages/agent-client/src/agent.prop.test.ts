/** Malformed frames against the real agent: it may end a connection, never itself, and always takes the next one. */
import { once } from 'node:events'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AgentProcess, Collected } from './testing/agent-process.js'
import { encodeHeader, FieldWriter, HEADER_BYTES, KIND } from './wire.js'

let agent: AgentProcess
beforeAll(async () => {
  agent = await AgentProcess.listen()
})
afterAll(() => agent[Symbol.asyncDispose]())

function frame(kind: number, stream: number, payload: Uint8Array, flags = 0, length = payload.length): Buffer {
  const head = Buffer.alloc(HEADER_BYTES)
  encodeHeader(head, kind, stream, length, flags)
  return Buffer.concat([head, payload])
}

const HELLO = frame(KIND.hello, 0, new FieldWriter().text(1, 'FAAS').u16(2, 1).u16(3, 1).finish())

/** What a sane host could send, with every number and size left to chance. */
const fields = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 20 }), fc.oneof(
    fc.uint8Array({ maxLength: 24 }),
    fc.constantFrom('/bin/true', 'true', '/', '/tmp', '/nonexistent', 'root', '\0').map((text) => Buffer.from(text)),
    fc.constantFrom(1, 2, 4, 8).chain((n) => fc.uint8Array({ minLength: n, maxLength: n })),
  )), { maxLength: 6 })
  .map((list) => list.reduce((w, [tag, value]) => w.bytes(tag, value), new FieldWriter()).finish())

// Kinds that would end other tests' work or walk this host's files are left to their own tests.
const HARMLESS = Object.values(KIND).filter(
  (kind) => !([KIND.shutdown, KIND.remove, KIND.move, KIND.write, KIND.tarIn, KIND.tarOut, KIND.mkdir, KIND.reseed, KIND.exec, KIND.quiesce] as number[]).includes(kind),
)

const anyFrame = fc.oneof(
  fc.tuple(fc.constantFrom(...HARMLESS), fc.integer({ min: 0, max: 5 }), fields, fc.constantFrom(0, 0, 0, 1))
    .map(([kind, stream, payload, flags]) => frame(kind, stream, payload, flags)),
  fc.tuple(fc.constantFrom(KIND.exec), fc.integer({ min: 0, max: 5 }), fields)
    .map(([kind, stream, payload]) => frame(kind, stream, payload)),
  fc.tuple(fc.integer({ min: 0x33, max: 255 }), fc.nat(), fc.uint8Array({ maxLength: 64 }))
    .map(([kind, stream, payload]) => frame(kind, stream, payload)),
  fc.tuple(fc.constantFrom(...HARMLESS), fc.nat(), fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 255 }))
    .map(([kind, stream, length, flags]) => frame(kind, stream, new Uint8Array(8), flags, length)),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
)

async function throwAt(bytes: Buffer): Promise<void> {
  const socket = await agent.socket()
  socket.on('error', () => undefined) // the agent may reset it; that is its right
  socket.resume()
  const closed = new Promise((resolve) => socket.once('close', resolve))
  socket.end(bytes)
  await closed
}

async function stillWorks(): Promise<void> {
  const client = await agent.client()
  const io = new Collected()
  const exec = await client.exec({ argv: ['/bin/echo', 'well'], env: {} }, io)
  await exec.wait()
  expect(io.stdout).toBe('well\n')
  await client.close()
}

describe('the agent against malformed input', () => {
  it('survives random bytes without a greeting', async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 2_000 }), (bytes) => throwAt(Buffer.from(bytes))), { numRuns: 200 })
    await stillWorks()
  })

  it('survives any frames after a greeting', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(anyFrame, { maxLength: 12 }), (frames) => throwAt(Buffer.concat([HELLO, ...frames]))),
      { numRuns: 500 },
    )
    await stillWorks()
    expect(agent.alive).toBe(true)
  })

  it('keeps no memory of what it refused', async () => {
    const before = agent.memoryBytes()
    const part = frame(KIND.exec, 1, Buffer.alloc(65_536, 1), 1)
    const flood = Buffer.concat([HELLO, ...Array.from({ length: 140 }, () => part)])
    for (let i = 0; i < 20; i++) await throwAt(flood)
    await stillWorks()
    expect(agent.memoryBytes() - before).toBeLessThan(4 * 1024 * 1024)
  })

  it('says what was wrong before it hangs up', async () => {
    const socket = await agent.socket()
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.write(Buffer.concat([HELLO, frame(0xee, 1, new Uint8Array())]))
    await once(socket, 'close')
    expect(Buffer.concat(chunks).toString('latin1')).toContain('unknown message type')
  })

  it.each([
    ['a request before the greeting', [frame(KIND.ping, 1, new Uint8Array())], 'the first message is not HELLO'],
    ['a greeting of another protocol', [frame(KIND.hello, 0, new FieldWriter().text(1, 'HTTP').u16(2, 1).u16(3, 1).finish())], 'HELLO is malformed'],
    ['a version it does not speak', [frame(KIND.hello, 0, new FieldWriter().text(1, 'FAAS').u16(2, 7).u16(3, 9).finish())], 'speaks version 1 only'],
    ['a second greeting', [HELLO, HELLO], 'a second HELLO'],
    ['a request on stream 0', [HELLO, frame(KIND.ping, 0, new Uint8Array())], 'stream 0 belongs to the connection'],
    ['stdin beyond its window', [HELLO, frame(KIND.exec, 1, new FieldWriter().text(1, '/bin/sleep').text(1, '9').u8(5, 1).finish()), ...Array.from({ length: 5 }, () => frame(KIND.stdin, 1, Buffer.alloc(65_536)))], 'STDIN beyond its window'],
    ['a stream id used twice', [HELLO, ...[1, 1].map((id) => frame(KIND.exec, id, new FieldWriter().text(1, '/bin/sleep').text(1, '9').finish()))], 'the stream id is in use'],
  ])('%s is refused with the reason', async (_name, frames, reason) => {
    const socket = await agent.socket()
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('error', () => undefined)
    socket.write(Buffer.concat(frames))
    await once(socket, 'close')
    expect(Buffer.concat(chunks).toString('latin1')).toContain(reason)
  })
})
