import { describe, expect, test } from 'vitest'
import { ALICE, as, makeRig, request, textOf } from '../test-support/rig.js'

describe('an ephemeral execution', () => {
  test('answers with output, exit code, usage and a time budget', async () => {
    await using rig = await makeRig()
    const result = await rig.executor.run(request('echo hello; echo oops >&2; exit 3'), as(ALICE))
    expect(textOf(result.stdout.bytes)).toBe('hello\n')
    expect(textOf(result.stderr.bytes)).toBe('oops\n')
    expect(result).toMatchObject({ outcome: 'exited', state: 'failed', exitCode: 3, message: 'Process exited with code 3', errorCode: null, start: 'cold' })
    expect(result.decision).toMatchObject({ runtime: 'memory' })
    expect(Object.keys(result.timeBudget)).toEqual(expect.arrayContaining(['queue', 'image', 'exec_start', 'run', 'collect']))
  })
})
