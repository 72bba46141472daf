import { describe, expect, test } from 'vitest'
import { asId, FaasError, type ExecutionEvent, type ExecutionId } from '@faas-platform/core'
import { BASE_REFERENCE, eventually, MemoryDriver, within } from '@faas-platform/testkit'
import { ALICE, as, BOB, makeRig, request, textOf } from '../test-support/rig.js'

const NOBODY_LEFT = { sandboxes: 0, processes: 0, retained: 0, creating: 0 }

async function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(() => 'it resolved', (error: unknown) => (error instanceof FaasError ? error.code : String(error)))
}

async function collect(events: AsyncIterable<ExecutionEvent>): Promise<ExecutionEvent[]> {
  const all: ExecutionEvent[] = []
  for await (const event of events) all.push(event)
  return all
}

function outputOf(events: readonly ExecutionEvent[], stream: 'stdout' | 'stderr'): string {
  return events.map((event) => (event.type === stream ? textOf(event.bytes) : '')).join('')
}

describe('an ephemeral execution', () => {
  test('answers with output, exit code, usage and a time budget', async () => {
    await using rig = await makeRig()
    const result = await rig.executor.run(request('echo hello; echo oops >&2; exit 3'), as(ALICE))
    expect(textOf(result.stdout.bytes)).toBe('hello\n')
    expect(textOf(result.stderr.bytes)).toBe('oops\n')
    expect(result).toMatchObject({ outcome: 'exited', state: 'failed', exitCode: 3, message: 'Process exited with code 3', errorCode: null, start: 'cold' })
    expect(result.decision).toMatchObject({ runtime: 'memory' })
    expect(result.usage.outputBytes).toBe(11)
    expect(Object.keys(result.timeBudget)).toEqual(['queue', 'image', 'create_create', 'create_other', 'exec_start', 'run', 'collect'])
  })

  test('has a time budget that adds up to the time it took', async () => {
    await using rig = await makeRig()
    const startMs = performance.now()
    const result = await rig.executor.run(request('sleep 0.05'), as(ALICE))
    const tookMs = performance.now() - startMs
    const sum = Object.values(result.timeBudget).reduce((total, ms) => total + ms, 0)
    expect(sum).toBeLessThanOrEqual(tookMs + 0.1)
    expect(sum).toBeGreaterThan(tookMs - 15)
  })

  test('gets the image environment under its own, with a PATH by default', async () => {
    const driver = new MemoryDriver({ imageConfig: { env: { A: 'image', B: 'image' }, workingDir: '/etc' } })
    await using rig = await makeRig({ driver })
    const result = await rig.executor.run(request('echo $A $B $PATH; pwd', { env: { B: 'request' } }), as(ALICE))
    expect(textOf(result.stdout.bytes)).toBe('image request /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n/etc\n')
  })

  test('reads its stdin and sees the end of it', async () => {
    await using rig = await makeRig()
    const result = await rig.executor.run(request('cat', { stdin: new TextEncoder().encode('typed') }), as(ALICE))
    expect(textOf(result.stdout.bytes)).toBe('typed')
  })

  test('is ended at its deadline with what it wrote, as 124', async () => {
    await using rig = await makeRig()
    const result = await within(5_000, 'the deadline', rig.executor.run(request('echo before; sleep 60', { timeoutMs: 150 }), as(ALICE)))
    expect(result).toMatchObject({ outcome: 'deadline', state: 'timed_out', exitCode: 124, errorCode: 'execution/deadline' })
    expect(textOf(result.stdout.bytes)).toBe('before\n')
  })

  test('that ignores SIGTERM is killed after the grace', async () => {
    await using rig = await makeRig({ config: { killGraceMs: 30 } })
    const result = await within(5_000, 'the kill', rig.executor.run(request("trap '' TERM; echo armed; while true; do sleep 0.01; done", { timeoutMs: 150 }), as(ALICE)))
    expect(result).toMatchObject({ outcome: 'deadline', exitCode: 124 })
  })

  test('counts the wait for a sandbox into its deadline', async () => {
    const driver = new MemoryDriver()
    driver.faults.createDelayMs = 60_000
    await using rig = await makeRig({ driver })
    const result = await within(5_000, 'the deadline', rig.executor.run(request('true', { timeoutMs: 100 }), as(ALICE)))
    expect(result).toMatchObject({ outcome: 'deadline', state: 'timed_out', start: null, startedAtMs: null })
  })

  test('ends when its caller goes away', async () => {
    await using rig = await makeRig()
    const gone = new AbortController()
    const running = rig.executor.run(request('sleep 60'), as(ALICE, { signal: gone.signal }))
    await eventually(() => rig.driver.live().processes > 0)
    gone.abort()
    expect(await within(5_000, 'the end', running)).toMatchObject({ outcome: 'cancelled', state: 'cancelled' })
    await eventually(() => rig.driver.live().processes === 0)
  })

  test('of a command that does not exist answers 127, and 126 when it may not run', async () => {
    await using rig = await makeRig()
    const missing = await rig.executor.run(request('', { argv: ['nowhere'] }), as(ALICE))
    expect(missing).toMatchObject({ outcome: 'spawn_failed', exitCode: 127, errorCode: 'execution/spawn-failed', state: 'failed' })
    const forbidden = await rig.executor.run(request('', { argv: ['/etc/passwd'] }), as(ALICE))
    expect(forbidden).toMatchObject({ outcome: 'spawn_failed', exitCode: 126 })
  })

  test('over its memory limit says so, with 137', async () => {
    await using rig = await makeRig()
    const result = await rig.executor.run(request('', { argv: ['memhog', '200'] }), as(ALICE))
    expect(result).toMatchObject({ outcome: 'oom', exitCode: 137, errorCode: 'sandbox/oom' })
  })

  test('that floods its output is ended at the limit of the log', async () => {
    await using rig = await makeRig()
    const result = await within(10_000, 'the limit', rig.executor.run(request('yes', { logBytesMax: 1_000_000, outputBytesMax: 2_000 }), as(ALICE)))
    expect(result).toMatchObject({ outcome: 'output_limit', errorCode: 'execution/output-limit', state: 'failed' })
    expect(result.stdout.truncated).toBe(true)
    expect(result.stdout.bytes.length).toBeLessThan(2_200)
    expect(textOf(result.stdout.bytes)).toMatch(/… \d+ bytes left out …/)
  })

  test('whose sandbox dies throws what happened, and is recorded', async () => {
    await using rig = await makeRig()
    const id = asId<ExecutionId>('lost-one')
    const running = codeOf(rig.executor.run(request('sleep 60'), as(ALICE, { id })))
    await eventually(() => rig.driver.live().processes > 0)
    for (const sandbox of await rig.driver.list()) rig.driver.lose(sandbox)
    expect(await within(5_000, 'the loss', running)).toBe('sandbox/lost')
    expect(await rig.executor.get(id, ALICE)).toMatchObject({ state: 'failed', result: { outcome: 'error', errorCode: 'sandbox/lost' } })
  })

  test('whose start hangs ends at the deadline', async () => {
    await using rig = await makeRig()
    rig.driver.faults.hangExecs = 1
    expect(await within(5_000, 'the deadline', rig.executor.run(request('true', { timeoutMs: 100 }), as(ALICE)))).toMatchObject({ outcome: 'deadline' })
  })

  test('of an unknown image throws image/not-found', async () => {
    await using rig = await makeRig()
    expect(await codeOf(rig.executor.run(request('true', { image: 'nowhere/nothing:1' }), as(ALICE)))).toMatch(/^image\//)
  })

  test('in a mode that is not there says so', async () => {
    await using rig = await makeRig()
    expect(await codeOf(rig.executor.run(request('true', { mode: 'cached' }), as(ALICE)))).toBe('mode/unsupported')
  })

  test('tells every event in order as it happens', async () => {
    await using rig = await makeRig()
    const events: ExecutionEvent[] = []
    await rig.executor.run(request('echo a; echo b >&2'), as(ALICE, { onEvent: (event) => void events.push(event) }))
    expect(events.map((event) => event.seq)).toEqual(events.map((_, index) => index))
    expect(events.map((event) => (event.type === 'state' ? event.state : event.type)).slice(0, 3)).toEqual(['queued', 'starting', 'running'])
    expect(events.at(-1)?.type).toBe('end')
    expect(outputOf(events, 'stdout')).toBe('a\n')
    expect(outputOf(events, 'stderr')).toBe('b\n')
  })

  test('survives a listener that throws', async () => {
    await using rig = await makeRig()
    const result = await rig.executor.run(request('echo fine'), as(ALICE, { onEvent: () => { throw new Error('listener') } }))
    expect(result.exitCode).toBe(0)
  })

  test('waits for a slow listener instead of filling memory', async () => {
    await using rig = await makeRig()
    let inside = 0
    let most = 0
    const result = await rig.executor.run(request('yes | head -c 300000', { logBytesMax: 10_000_000 }), as(ALICE, {
      onEvent: async (event) => {
        if (event.type !== 'stdout') return
        inside++
        most = Math.max(most, inside)
        await new Promise((resolve) => setImmediate(resolve))
        inside--
      },
    }))
    expect(result.stdout.totalBytes).toBe(300_000)
    expect(most).toBeLessThanOrEqual(2)
  })
})

describe('records', () => {
  test('are there the moment the result is answered, and after the ledger has them', async () => {
    await using rig = await makeRig()
    let open: () => void = () => undefined
    rig.ledger.gate = new Promise((resolve) => { open = resolve })
    const result = await rig.executor.run(request('echo kept'), as(ALICE))
    expect(rig.ledger.executions.size).toBe(0)
    expect((await rig.executor.get(result.id, ALICE)).result).toEqual(result)
    expect((await rig.executor.list({}, ALICE)).executions.map((entry) => entry.id)).toEqual([result.id])
    open()
    await eventually(() => rig.ledger.executions.size === 1)
    expect((await rig.executor.get(result.id, ALICE)).result).toEqual(result)
    expect((await rig.executor.list({}, ALICE)).executions).toHaveLength(1)
  })

  test('of others are not found', async () => {
    await using rig = await makeRig()
    const { id } = await rig.executor.run(request('true'), as(ALICE))
    expect(await codeOf(rig.executor.get(id, BOB))).toBe('execution/not-found')
    expect(await codeOf(rig.executor.cancel(id, BOB))).toBe('execution/not-found')
    expect(await codeOf(collect(rig.executor.subscribe(id, BOB)))).toBe('execution/not-found')
    expect((await rig.executor.list({}, BOB)).executions).toEqual([])
    expect((await rig.executor.get(id, null)).id).toBe(id)
  })

  test('page through all of them once, newest first', async () => {
    await using rig = await makeRig()
    const ids: string[] = []
    for (let n = 0; n < 7; n++) ids.push((await rig.executor.run(request('true'), as(ALICE))).id)
    const seen: string[] = []
    let cursor: string | null = null
    do {
      const page = await rig.executor.list({ limit: 3, ...(cursor === null ? {} : { cursor }) }, ALICE)
      seen.push(...page.executions.map((entry) => entry.id))
      cursor = page.nextCursor
    } while (cursor !== null)
    expect([...seen].sort()).toEqual([...ids].sort())
    expect(await codeOf(rig.executor.list({ cursor: 'bogus' }, ALICE))).toBe('request/invalid')
  })

  test('add up to usage totals per principal', async () => {
    await using rig = await makeRig()
    await rig.executor.run(request('echo 12345'), as(ALICE))
    await rig.executor.run(request('echo 12345'), as(ALICE))
    await eventually(() => [...rig.ledger.usage.values()][0]?.executions === 2)
    expect([...rig.ledger.usage.values()][0]).toMatchObject({ principal: ALICE, outputBytes: 12 })
  })
})

describe('events', () => {
  test('of a finished execution replay as they were, from any point', async () => {
    await using rig = await makeRig()
    const told: ExecutionEvent[] = []
    const { id } = await rig.executor.run(request('echo one; echo two >&2; echo three'), as(ALICE, { onEvent: (event) => void told.push(event) }))
    await eventually(() => rig.ledger.executions.size === 1)
    const replayed = await collect(rig.executor.subscribe(id, ALICE))
    expect(replayed.slice(replayed.length - told.length)).toEqual(told)
    expect(replayed.map((event) => event.seq)).toEqual(replayed.map((_, index) => index))
    expect(await collect(rig.executor.subscribe(id, ALICE, { fromSeq: 3 }))).toEqual(replayed.slice(3))
  })

  test('of a large output replay from the log store, whole', async () => {
    await using rig = await makeRig({ config: { logMemoryBytesMax: 1_000 } })
    const { id, stdout } = await rig.executor.run(request('seq 20000', { outputBytesMax: 1_000 }), as(ALICE))
    expect(stdout.truncated).toBe(true)
    await eventually(() => rig.ledger.executions.size === 1)
    expect(rig.logStore.logs.size).toBe(1)
    const whole = outputOf(await collect(rig.executor.subscribe(id, ALICE)), 'stdout')
    expect(whole).toBe(Array.from({ length: 20_000 }, (_, n) => `${n + 1}\n`).join(''))
  })

  test('follow a running execution to its end, for many readers at their own pace', async () => {
    await using rig = await makeRig({ config: { logMemoryBytesMax: 2_000 } })
    const id = asId<ExecutionId>('followed')
    const running = rig.executor.run(request('seq 3000; sleep 0.05; seq 3000'), as(ALICE, { id }))
    const slow = async (): Promise<ExecutionEvent[]> => {
      const all: ExecutionEvent[] = []
      for await (const event of rig.executor.subscribe(id, ALICE)) {
        all.push(event)
        await new Promise((resolve) => setImmediate(resolve))
      }
      return all
    }
    const [result, fast, late] = await Promise.all([running, collect(rig.executor.subscribe(id, ALICE)), slow()])
    expect(outputOf(fast, 'stdout').length).toBe(result.stdout.totalBytes)
    expect(late).toEqual(fast)
    expect(fast.at(-1)).toMatchObject({ type: 'end', result: { id } })
  })

  test('stop when the reader leaves', async () => {
    await using rig = await makeRig()
    const id = asId<ExecutionId>('left')
    const gone = new AbortController()
    const running = rig.executor.run(request('sleep 60'), as(ALICE, { id, signal: gone.signal }))
    const left = new AbortController()
    const reading = codeOf(collect(rig.executor.subscribe(id, ALICE, { signal: left.signal })))
    await eventually(() => rig.driver.live().processes > 0)
    left.abort(new FaasError('execution/cancelled', { message: 'left' }))
    expect(await within(2_000, 'the reader', reading)).toBe('execution/cancelled')
    gone.abort()
    await running
  })
})

describe('cancelling', () => {
  test('ends a running execution and answers with its record', async () => {
    await using rig = await makeRig()
    const id = asId<ExecutionId>('cancelled')
    const running = rig.executor.run(request('echo begun; sleep 60'), as(ALICE, { id }))
    await eventually(() => rig.driver.live().processes > 0)
    const view = await within(5_000, 'the cancel', rig.executor.cancel(id, ALICE))
    expect(view).toMatchObject({ state: 'cancelled', result: { outcome: 'cancelled', errorCode: 'execution/cancelled' } })
    expect((await running).outcome).toBe('cancelled')
    expect(await codeOf(rig.executor.cancel(id, ALICE))).toBe('execution/not-running')
  })
})

describe('an idempotency key', () => {
  test('joins callers to one run and answers the finished one again', async () => {
    await using rig = await makeRig()
    const call = (): Promise<{ id: string }> => rig.executor.run(request('sleep 0.05; echo once'), as(ALICE, { idempotencyKey: 'k' }))
    const results = await Promise.all(Array.from({ length: 20 }, call))
    expect(new Set(results.map((result) => result.id)).size).toBe(1)
    await eventually(() => rig.ledger.executions.size === 1)
    expect((await call()).id).toBe(results[0]?.id)
    expect(rig.driver.counts.execs).toBe(1)
  })

  test('refuses another request, and is one principal\'s own', async () => {
    await using rig = await makeRig()
    const first = await rig.executor.run(request('echo 1'), as(ALICE, { idempotencyKey: 'k' }))
    expect(await codeOf(rig.executor.run(request('echo 2'), as(ALICE, { idempotencyKey: 'k' })))).toBe('request/idempotency-conflict')
    await eventually(() => rig.ledger.executions.size === 1)
    expect(await codeOf(rig.executor.run(request('echo 2'), as(ALICE, { idempotencyKey: 'k' })))).toBe('request/idempotency-conflict')
    const others = await rig.executor.run(request('echo 2'), as(BOB, { idempotencyKey: 'k' }))
    expect(others.id).not.toBe(first.id)
  })

  test('keeps the run going while one of its callers is left', async () => {
    await using rig = await makeRig()
    const gone = new AbortController()
    const first = rig.executor.run(request('sleep 0.2; echo done'), as(ALICE, { idempotencyKey: 'k', signal: gone.signal }))
    await eventually(() => rig.driver.live().processes > 0)
    const second = rig.executor.run(request('sleep 0.2; echo done'), as(ALICE, { idempotencyKey: 'k' }))
    await new Promise((resolve) => setImmediate(resolve))
    gone.abort()
    expect((await second).outcome).toBe('exited')
    expect((await first).outcome).toBe('exited')
  })

  test('is free again after a run that was cancelled or never began', async () => {
    await using rig = await makeRig()
    rig.driver.faults.failCreates = 1
    expect(await codeOf(rig.executor.run(request('echo 1'), as(ALICE, { idempotencyKey: 'k' })))).toBe('sandbox/create-failed')
    await eventually(() => rig.ledger.executions.size === 1)
    expect((await rig.executor.run(request('echo 1'), as(ALICE, { idempotencyKey: 'k' }))).outcome).toBe('exited')
  })
})

describe('an asynchronous execution', () => {
  test('is durable before it is accepted, and has one result later', async () => {
    await using rig = await makeRig()
    const view = await rig.executor.submit(request('sleep 0.02; echo later'), { principal: ALICE })
    expect(rig.ledger.durableWrites).toBeGreaterThanOrEqual(1)
    expect(rig.ledger.executions.has(view.id)).toBe(true)
    const result = await within(5_000, 'the result', rig.executor.wait(view.id, ALICE, new AbortController().signal))
    expect(textOf(result.stdout.bytes)).toBe('later\n')
    expect(rig.ledger.executions.get(view.id)).toMatchObject({ state: 'succeeded', attempt: 1, kind: 'async' })
  })

  test('shows its result only after the ledger has it', async () => {
    await using rig = await makeRig()
    const view = await rig.executor.submit(request('echo hidden'), { principal: ALICE })
    let open: () => void = () => undefined
    rig.ledger.gate = new Promise((resolve) => { open = resolve })
    await eventually(() => rig.driver.counts.ended + rig.driver.counts.execs > 0 || rig.executor.metrics().async.running > 0)
    expect((await rig.executor.get(view.id, ALICE)).result).toBeNull()
    open()
    await within(5_000, 'the result', rig.executor.wait(view.id, ALICE, new AbortController().signal))
  })

  test('can be cancelled while it waits', async () => {
    await using rig = await makeRig({ config: { asyncConcurrencyMax: 1 } })
    const first = await rig.executor.submit(request('sleep 60'), { principal: ALICE })
    const second = await rig.executor.submit(request('echo never'), { principal: ALICE })
    expect(await rig.executor.cancel(second.id, ALICE)).toMatchObject({ state: 'cancelled' })
    expect((await collect(rig.executor.subscribe(second.id, ALICE))).at(-1)).toMatchObject({ type: 'end' })
    await rig.executor.cancel(first.id, ALICE)
    expect(rig.driver.counts.execs).toBeLessThanOrEqual(1)
  })

  test('is refused when the queue is full', async () => {
    await using rig = await makeRig({ config: { asyncConcurrencyMax: 1, asyncQueueMax: 2 } })
    await rig.executor.submit(request('sleep 60'), { principal: ALICE })
    await rig.executor.submit(request('sleep 60'), { principal: ALICE })
    expect(await codeOf(rig.executor.submit(request('true'), { principal: ALICE }))).toBe('admission/queue-full')
  })

  test('is accepted once per idempotency key', async () => {
    await using rig = await makeRig()
    const submit = (): Promise<{ id: string }> => rig.executor.submit(request('echo x'), { principal: ALICE, idempotencyKey: 'k' })
    const ids = new Set((await Promise.all([submit(), submit(), submit()])).map((view) => view.id))
    expect(ids.size).toBe(1)
    const [id] = ids
    await rig.executor.wait(asId<ExecutionId>(id ?? ''), ALICE, new AbortController().signal)
    expect((await submit()).id).toBe(id)
    expect(rig.driver.counts.execs).toBe(1)
  })
})

describe('an instance', () => {
  test('keeps its files between commands, found by its id and by the execution that made it', async () => {
    await using rig = await makeRig()
    const made = await rig.executor.run(request('echo state > /tmp-file; echo made', { mode: 'persistent' }), as(ALICE))
    expect(made.instanceId).not.toBeNull()
    const again = await rig.executor.execInInstance(made.id, request('cat /tmp-file'), as(ALICE))
    expect(textOf(again.stdout.bytes)).toBe('state\n')
    expect(again).toMatchObject({ start: 'reused', instanceId: made.instanceId })
    expect(rig.executor.getInstance(made.id, ALICE)).toMatchObject({ id: made.instanceId, state: 'running', createdBy: made.id })
  })

  test('of others is not found', async () => {
    await using rig = await makeRig()
    const { id } = await rig.executor.createInstance(instanceRequest(), as(ALICE))
    expect(() => rig.executor.getInstance(id, BOB)).toThrow(expect.objectContaining({ code: 'instance/not-found' }) as Error)
    expect(rig.executor.listInstances(BOB)).toEqual([])
    expect(rig.executor.listInstances(ALICE)).toHaveLength(1)
  })

  test('that was stopped takes no commands and frees its sandbox; deleted, it is gone', async () => {
    await using rig = await makeRig({ config: { pool: { enabled: false } } })
    const { id } = await rig.executor.createInstance(instanceRequest(), as(ALICE))
    expect(await rig.executor.stopInstance(id, ALICE)).toMatchObject({ state: 'stopped' })
    expect(rig.driver.live().sandboxes).toBe(0)
    expect(await codeOf(rig.executor.execInInstance(id, request('true'), as(ALICE)))).toBe('instance/wrong-state')
    await rig.executor.deleteInstance(id, ALICE)
    expect(rig.executor.listInstances(ALICE)).toEqual([])
  })

  test('whose sandbox dies is failed, with the reason', async () => {
    await using rig = await makeRig({ config: { pool: { enabled: false } } })
    const { id } = await rig.executor.createInstance(instanceRequest(), as(ALICE))
    for (const sandbox of await rig.driver.list()) rig.driver.lose(sandbox)
    await eventually(() => rig.executor.getInstance(id, ALICE).state === 'failed')
    expect(rig.executor.getInstance(id, ALICE).message).toBe('The sandbox ended by itself.')
    await rig.executor.deleteInstance(id, ALICE)
  })

  test('over the limit is refused', async () => {
    await using rig = await makeRig({ config: { instances: { principalMax: 1 } } })
    await rig.executor.createInstance(instanceRequest(), as(ALICE))
    expect(await codeOf(rig.executor.createInstance(instanceRequest(), as(ALICE)))).toBe('instance/limit')
    await rig.executor.createInstance(instanceRequest(), as(BOB))
  })
})

describe('the end state of an execution', () => {
  test('is kept when it wrote something, and is its image when it did not', async () => {
    await using rig = await makeRig()
    const wrote = await rig.executor.run(request('echo data > /kept'), as(ALICE))
    const kept = await rig.executor.getRetained(wrote.id, ALICE)
    expect(kept.state?.sizeBytes).toBeGreaterThan(0)
    const quiet = await rig.executor.run(request('true'), as(ALICE))
    expect(await rig.executor.getRetained(quiet.id, ALICE)).toMatchObject({ state: null, executionId: quiet.id })
    expect(await codeOf(rig.executor.getRetained(wrote.id, BOB))).toBe('execution/result-expired')
  })

  test('goes when there are more than may be kept', async () => {
    await using rig = await makeRig({ config: { retention: { countMax: 2 } } })
    const ids: ExecutionId[] = []
    for (let n = 0; n < 4; n++) {
      const { id } = await rig.executor.run(request(`echo ${n} > /kept`), as(ALICE))
      await rig.executor.getRetained(id, ALICE)
      ids.push(id)
    }
    expect(await codeOf(rig.executor.getRetained(ids[0] ?? asId('none'), ALICE))).toBe('execution/result-expired')
    await eventually(() => rig.driver.live().retained === 2)
  })
})

describe('draining', () => {
  test('lets what runs end, refuses the new, and leaves nothing', async () => {
    const rig = await makeRig()
    const running = rig.executor.run(request('sleep 0.1; echo done'), as(ALICE))
    await rig.executor.run(request('echo data > /kept', { mode: 'persistent' }), as(ALICE))
    await eventually(() => rig.driver.live().processes > 0)
    const drained = rig.executor.drain(5_000)
    expect(await codeOf(rig.executor.run(request('true'), as(ALICE)))).toBe('admission/draining')
    expect((await running).outcome).toBe('exited')
    expect(await drained).toEqual({ cancelled: 0, handedBack: 0, leftBehind: 0 })
    expect(rig.driver.live()).toEqual(NOBODY_LEFT)
  })

  test('ends what runs past its deadline, and hands back asynchronous work', async () => {
    const rig = await makeRig({ config: { asyncConcurrencyMax: 1 } })
    const running = rig.executor.run(request('sleep 60'), as(ALICE))
    const first = await rig.executor.submit(request('sleep 60'), { principal: ALICE })
    const second = await rig.executor.submit(request('sleep 60'), { principal: ALICE })
    await eventually(() => rig.driver.live().processes >= 2)
    expect(await within(5_000, 'the drain', rig.executor.drain(20))).toEqual({ cancelled: 1, handedBack: 2, leftBehind: 0 })
    expect(await running).toMatchObject({ outcome: 'cancelled', errorCode: 'admission/draining' })
    expect(rig.ledger.executions.get(first.id)).toMatchObject({ state: 'queued', result: null })
    expect(rig.ledger.executions.get(second.id)).toMatchObject({ state: 'queued', result: null })
    expect(rig.driver.live()).toEqual(NOBODY_LEFT)
  })
})

describe('prewarming', () => {
  const spec = { image: BASE_REFERENCE, runtime: 'auto', isolationFloor: 'none', limits: request('').limits, network: request('').network } as const

  test('resolves when the sandboxes are ready, and the next runs are warm', async () => {
    await using rig = await makeRig()
    expect(await rig.executor.prewarm(spec, 3, { signal: new AbortController().signal })).toMatchObject({ runtime: 'memory', wanted: 3, ready: 3, limitedBy: null })
    expect(rig.executor.pools()).toMatchObject([{ ready: 3, floor: 3 }])
    const results = await Promise.all([1, 2, 3].map(() => rig.executor.run(request('true'), as(ALICE))))
    expect(results.map((result) => result.start)).toEqual(['warm', 'warm', 'warm'])
    expect(Object.keys(results[0]?.timeBudget ?? {})).toEqual(['queue', 'image', 'acquire', 'exec_start', 'run', 'collect'])
  })

  test('reports why it stays below what was asked for', async () => {
    await using rig = await makeRig()
    rig.driver.faults.failCreates = 100
    expect(await rig.executor.prewarm(spec, 2, { signal: new AbortController().signal })).toMatchObject({ ready: 0, limitedBy: 'The injected fault made the creation fail.' })
  })
})

function instanceRequest(): Parameters<Awaited<ReturnType<typeof makeRig>>['executor']['createInstance']>[0] {
  const { image, runtime, isolationFloor, limits, network, env, labels } = request('')
  return { name: 'dev', image, runtime, isolationFloor, limits, network, env, labels }
}
