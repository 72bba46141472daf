/**
 * The suite that every runtime driver passes, the in-memory one included.
 * A feature that a driver declares as absent is not skipped: the suite then asserts the typed refusal.
 */
import { afterAll, afterEach, beforeAll, describe } from 'vitest'
import { imageTests, lifeTests, probeTests } from './contract/basics.js'
import { Bench, type ContractOptions } from './contract/bench.js'
import { crashTests, leakTests } from './contract/crash.js'
import { execTests } from './contract/exec.js'
import { fileTests, retainTests } from './contract/files.js'
import { egressTests, isolationTests } from './contract/isolation.js'
import { limitTests, pauseTests } from './contract/limits.js'
import { signalTests } from './contract/signals.js'
import { streamTests, terminalTests } from './contract/streams.js'

export type { ContractOptions } from './contract/bench.js'

export function runtimeDriverContract(options: ContractOptions): void {
  describe(`the runtime driver ${options.name}`, () => {
    const isolates = options.isolates !== false
    let opened: Bench | undefined
    const bench = (): Bench => {
      if (opened === undefined) throw new Error('The driver was not made.')
      return opened
    }
    beforeAll(async () => {
      opened = await Bench.open(options)
    }, 120_000)
    afterAll(async () => {
      await opened?.close()
    }, 60_000)

    /** Sandboxes of one test are gone before the next; `shared` groups keep theirs until their end. */
    const group = (title: string, tests: (bench: () => Bench, isolates: boolean) => void, life: 'fresh' | 'shared' = 'fresh'): void => {
      describe(title, { timeout: 60_000 * (options.slowness ?? 1) }, () => {
        if (life === 'fresh') afterEach(() => opened?.disposeSandboxes(), 60_000)
        else afterAll(() => opened?.disposeSandboxes(), 60_000)
        tests(bench, isolates)
      })
    }

    group('probing', probeTests)
    group('images', imageTests)
    group('life', lifeTests)
    group('commands', execTests, 'shared')
    group('streams', streamTests, 'shared')
    group('terminals', terminalTests)
    group('signals', signalTests)
    group('limits', limitTests)
    group('pausing', pauseTests)
    group('files', fileTests)
    group('retention', retainTests)
    if (isolates) group('isolation', isolationTests)
    if (isolates) group('egress', egressTests)
    group('leaks', leakTests)
    describe('crashes', () => crashTests(options))
  })
}
