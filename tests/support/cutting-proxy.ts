/** A TCP proxy that cuts connections where a test wants it. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

export class CuttingProxy implements AsyncDisposable {
  readonly #open = new Set<Socket>()
  /** Decides with each chunk of an answer, before it is passed on: false cuts the connection instead. */
  pass: (chunk: Buffer, connection: number) => boolean = () => true
  connections = 0

  private constructor(private readonly server: Server, private readonly targetPort: number) {
    server.on('connection', (client) => this.#serve(client))
  }

  static async listen(targetPort: number): Promise<CuttingProxy> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new CuttingProxy(server, targetPort)
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.server.close()
    for (const socket of this.#open) socket.destroy()
    await once(this.server, 'close')
  }

  #serve(client: Socket): void {
    const number = this.connections++
    const target = connect(this.targetPort, '127.0.0.1')
    const both = [client, target]
    const cut = (): void => both.forEach((socket) => socket.destroy())
    for (const socket of both) {
      this.#open.add(socket)
      socket.on('error', cut).on('close', () => {
        this.#open.delete(socket)
        cut()
      })
    }
    client.on('data', (chunk) => target.write(chunk))
    target.on('data', (chunk: Buffer) => (this.pass(chunk, number) ? client.write(chunk) : cut()))
  }
}
