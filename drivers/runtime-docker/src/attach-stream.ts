/**
 * The engine's attach stream as the guest agent's byte stream.
 *
 * Without a terminal the engine multiplexes: `[stream, 0, 0, 0, length u32be]` and then `length` bytes.
 * Stream 1 carries the agent's protocol; stream 2 is what the agent, or the runtime before it, has to say to people.
 *
 * I1. Only a frame's 8-byte head is ever held back; payload goes on as it comes, so memory stays flat for any length.
 * I2. A reader that does not read stops the connection (back-pressure), and with it the guest.
 * @see Docker Engine API, ContainerAttach, "Stream format"
 */
import { Duplex } from 'node:stream'
import { EngineError } from './engine-error.js'

const HEAD_BYTES = 8
const STDOUT = 1
const STDERR = 2
/** Bytes of the agent's stderr that are kept for error messages: the latest. */
const NOTES_BYTES_MAX = 4096

export class AttachStream extends Duplex {
  readonly #socket: Duplex
  readonly #head = Buffer.alloc(HEAD_BYTES)
  #headFilled = 0
  #stream = 0
  #payloadLeft = 0
  #notes = Buffer.alloc(0)

  constructor(socket: Duplex) {
    super({ allowHalfOpen: true })
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#onData(chunk)
    })
    socket.on('end', () => this.push(null))
    socket.on('error', (error) => {
      this.destroy(new EngineError('unreachable', 'The attach connection broke.', null, error))
    })
    socket.on('close', () => {
      if (!this.readableEnded) this.push(null)
      if (!this.writableFinished) this.destroy()
    })
  }

  /** The latest of what came on stderr. */
  get notes(): string {
    return this.#notes.toString('utf8')
  }

  override _read(): void {
    this.#socket.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    if (this.#socket.destroyed) {
      done(new EngineError('unreachable', 'The attach connection is closed.'))
      return
    }
    this.#socket.write(chunk, done)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#socket.end(done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy()
    done(error)
  }

  #onData(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#payloadLeft === 0) {
        const part = chunk.subarray(at, at + HEAD_BYTES - this.#headFilled)
        part.copy(this.#head, this.#headFilled)
        this.#headFilled += part.length
        at += part.length
        if (this.#headFilled < HEAD_BYTES) return // I1
        this.#headFilled = 0
        this.#stream = this.#head[0] ?? 0
        this.#payloadLeft = this.#head.readUInt32BE(4)
        if (this.#stream !== STDOUT && this.#stream !== STDERR) {
          this.destroy(new EngineError('protocol', `The attach stream has a frame of unknown kind ${this.#stream}.`))
          return
        }
        continue
      }
      const payload = chunk.subarray(at, at + this.#payloadLeft)
      at += payload.length
      this.#payloadLeft -= payload.length
      if (this.#stream === STDERR) this.#note(payload)
      else if (!this.push(payload)) this.#socket.pause() // I2
    }
  }

  #note(bytes: Buffer): void {
    this.#notes = Buffer.concat([this.#notes, bytes]).subarray(-NOTES_BYTES_MAX)
  }
}
