import { addAbortSignal } from 'node:stream'
import { FaasError, formatBytes, MIB } from '@faas-platform/core'
import type { Cli } from './context.js'

/** One request carries it, encoded; the gateway takes bodies of 2 MiB unless set otherwise. */
export const STDIN_BYTES_MAX = 1 * MIB

/** Everything up to the end of this process's standard input. @throws FaasError `request/too-large` */
export async function readStandardInput(cli: Cli): Promise<Uint8Array> {
  const input = cli.streams.in
  if (input.isTTY === true) cli.streams.err.write('faas: reading the input of the command; Ctrl-D ends it\n')
  const chunks: Buffer[] = []
  let total = 0
  for await (const chunk of addAbortSignal(cli.signal, input) as AsyncIterable<Buffer | string>) {
    const bytes = Buffer.from(chunk)
    total += bytes.length
    if (total > STDIN_BYTES_MAX) {
      throw new FaasError('request/too-large', { message: `The input is larger than ${formatBytes(STDIN_BYTES_MAX)}.`, hint: 'Build it into an image with `faas image build`, or fetch it from inside with --network egress.' })
    }
    chunks.push(bytes)
  }
  return Buffer.concat(chunks)
}
