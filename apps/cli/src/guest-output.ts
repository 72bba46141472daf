/** A running command's output, from the stream of its events to this process's own streams. */
import { type ExecutionResult, FaaSResponseError, type StreamEvent } from '@faas-platform/sdk'
import type { Output } from './output.js'

/** Passes output through as it comes; with `--json` only the result is printed. */
export async function showRun(events: AsyncIterable<StreamEvent>, output: Output): Promise<ExecutionResult> {
  for await (const event of events) {
    if (event.type === 'stdout' && !output.json) await write(output.streams.out, event.bytes)
    if (event.type === 'stderr' && !output.json) await write(output.streams.err, event.bytes)
    if (event.type === 'end') {
      showEnd(event.result, output)
      return event.result
    }
  }
  throw new FaaSResponseError('The stream ended without a result.', { code: 'client/invalid-response', status: 200 })
}

/** Says why, when the command did not end by itself; its own exit code needs no words. */
export function showEnd(result: ExecutionResult, output: Output): void {
  if (output.json) output.line(JSON.stringify(result.raw, null, 2))
  else if (result.outcome !== 'exited' && result.error !== undefined) {
    output.note(`${output.style('yellow', 'faas:', 'err')} ${result.error}`)
    const hint = HINTS[String(result.raw['error_code'])]
    if (hint !== undefined) output.note(`${output.style('cyan', 'hint:', 'err')} ${hint}`)
  }
}

const BRING_IN = '`faas image ls` lists what is stored; `faas image import` and `faas image build` bring images in without a registry.'
/** What helps when the sandbox never came to be: a result has no room for it. */
const HINTS: Readonly<Record<string, string>> = {
  'image/not-found': BRING_IN,
  'image/pull-failed': BRING_IN,
  'runtime/unavailable': '`faas doctor` says what each runtime lacks.',
  'runtime/none-available': '`faas doctor` says what each runtime lacks.',
}

/** A reader that is slower than the guest slows the guest, through the socket's own back-pressure. */
export function write(stream: NodeJS.WritableStream, bytes: Uint8Array | string): Promise<void> {
  return new Promise((resolve, reject) => stream.write(bytes, (error) => (error === undefined || error === null ? resolve() : reject(error))))
}

export function showTimeBudget(result: ExecutionResult, output: Output): void {
  const phases = Object.entries(result.timeBudgetMs ?? {})
  const total = phases.reduce((sum, [, ms]) => sum + ms, 0)
  const dim = (text: string): void => output.note(output.style('dim', text, 'err'))
  dim(`${result.start ?? 'no'} start on ${result.runtimeUsed ?? 'no runtime'}, ${total.toFixed(2)} ms:`)
  for (const [phase, ms] of phases) dim(`  ${phase.padEnd(22)} ${ms.toFixed(2).padStart(9)} ms`)
}
