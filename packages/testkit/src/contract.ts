/**
 * The suite that every runtime driver passes, the in-memory one included.
 * A feature that a driver declares as absent is not skipped: the suite then asserts the typed refusal.
 */
import { afterAll, afterEach, beforeAll, describe } from 'vitest'
import { imageTests, lifeTests, probeTests } from './contract/basics.js'
import { Bench, type ContractOptions } from './contract/bench.js'
import { crashTests, leakTests } from './contract/crash.js'
import { escapeTests } from './contract/escapes.js'
import { execTests } from './contract/exec.js'
import { fileTests, retainTests } from './contract/files.js'
import { hostileImageTests } from './contract/hostile-images.js'
import { egressTests, isolationTests } from './contract/isolation.js'
import { limitTests, pauseTests } from './contract/limits.js'
import { signalTests } from './contract/signals.js'
import { streamTests, terminalTests } from './contract/streams.js'

export type { ContractOptions } from './contract/bench.js'

type Group = (title: string, tests: (bench: () => Bench, isolates: boolean) => void, life?: 'fresh' | 'shared') => void

export function runtimeDriverContract(options: ContractOptions): void {
  suite(`the runtime driver ${options.name}`, options, (group) => {
    const isolates = options.isolates !== false
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

/** Named escape attempts and hostile images, for runtimes that isolate. */
export function escapeAttempts(options: ContractOptions): void {
  suite(`ways out of ${options.name}`, options, (group) => {
    group('escape attempts', escapeTests, 'shared')
    group('hostile images', hostileImageTests)
  })
}

function suite(title: string, options: ContractOptions, body: (group: Group) => void): void {
  describe(title, () => {
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
    // Sandboxes of one test are gone before the next; a `shared` group keeps its own until its end.
    body((name, tests, life = 'fresh') => {
      describe(name, { timeout: 60_000 * (options.slowness ?? 1) }, () => {
        if (life === 'fresh') afterEach(() => opened?.disposeSandboxes(), 60_000)
        else afterAll(() => opened?.disposeSandboxes(), 60_000)
        tests(bench, options.isolates !== false)
      })
    })
  })
}
