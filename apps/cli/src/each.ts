/** Several things, one after the other: one that fails does not keep the others from happening. */
import type { Cli } from './context.js'
import { exitCodeOf } from './exit-codes.js'
import type { Output } from './output.js'

/** The exit code becomes that of the first failure; every failure is shown. */
export async function each(cli: Cli, output: Output, names: readonly string[], act: (name: string) => Promise<void>): Promise<void> {
  for (const name of names) {
    try {
      await act(name)
    } catch (thrown) {
      if (cli.signal.aborted || names.length === 1) throw thrown
      output.note(`${name}:`)
      output.failure(thrown)
      if (cli.exitCode === 0) cli.exitCode = exitCodeOf(thrown)
    }
  }
}
