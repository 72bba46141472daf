import { describe, expect, test } from 'vitest'
import { FaasError, silentLog, systemClock, type IsolationClass, type ProbeReport, type RuntimeDriver, type RuntimeFeatures, type RuntimeName } from '@faas-platform/core'
import { FakeClock, MemoryDriver } from '@faas-platform/testkit'
import { Runtimes, type RuntimeNeeds } from './runtimes.js'

const NEEDS: RuntimeNeeds = { runtime: 'auto', isolationFloor: 'none', network: { mode: 'none' }, features: [] }

function driver(name: RuntimeName, isolation: IsolationClass, probe: Partial<ProbeReport> = {}, features: Partial<RuntimeFeatures> = {}): MemoryDriver {
  const made = new MemoryDriver({ name, features: { isolation, ...features } })
  made.faults.probe = probe
  return made
}

async function choose(drivers: readonly RuntimeDriver[], needs: Partial<RuntimeNeeds> = {}, refuseVulnerable = true): Promise<{ runtime: string; reason: string } | FaasError> {
  const runtimes = new Runtimes(drivers, { runtimePreference: ['gvisor', 'runc', 'docker'], refuseVulnerable }, systemClock, silentLog)
  await runtimes.probe(new AbortController().signal)
  try {
    return runtimes.choose({ ...NEEDS, ...needs }).decision
  } catch (error) {
    if (error instanceof FaasError) return error
    throw error
  }
}

const down = { usable: false, reason: 'runsc is not installed.', hint: 'Run the set-up again.' }
const hole = { version: '1.0', vulnerabilities: [{ id: 'CVE-2024-21626', fixedIn: '1.1.12', summary: 'an escape' }] }

describe('auto', () => {
  test('takes the first that can, and says why', async () => {
    expect(await choose([driver('runc', 'process'), driver('gvisor', 'kernel')])).toMatchObject({ runtime: 'gvisor', reason: 'gvisor was chosen: it is first in the order of preference.' })
  })

  test('passes over what is down, with the reason', async () => {
    expect(await choose([driver('runc', 'process'), driver('gvisor', 'kernel', down)])).toMatchObject({ runtime: 'runc', reason: expect.stringContaining('gvisor can not be used here: runsc is not installed.') as string })
  })

  test('passes over known escapes, unless every caller is trusted', async () => {
    const drivers = [driver('runc', 'process'), driver('gvisor', 'kernel', hole)]
    expect(await choose(drivers)).toMatchObject({ runtime: 'runc' })
    expect(await choose(drivers, {}, false)).toMatchObject({ runtime: 'gvisor' })
  })

  test('keeps to the isolation floor and the network', async () => {
    const drivers = [driver('gvisor', 'kernel', {}, { network: ['none'] }), driver('runc', 'process')]
    expect(await choose(drivers, { network: { mode: 'egress' } })).toMatchObject({ runtime: 'runc' })
    expect(await choose(drivers, { network: { mode: 'egress' }, isolationFloor: 'kernel' })).toMatchObject({ code: 'runtime/none-available' })
  })

  test('never chooses a runtime that is not in the order', async () => {
    expect(await choose([driver('memory', 'none')])).toMatchObject({ code: 'runtime/none-available' })
  })
})

describe('a runtime asked for by name', () => {
  test('is used when it can be', async () => {
    expect(await choose([driver('runc', 'process'), driver('gvisor', 'kernel')], { runtime: 'runc' })).toMatchObject({ runtime: 'runc', isolation: 'process' })
  })

  test('that is down is refused with the reason and the hint of its probe', async () => {
    expect(await choose([driver('gvisor', 'kernel', down)], { runtime: 'gvisor' })).toMatchObject({ code: 'runtime/unavailable', message: 'gvisor can not be used here: runsc is not installed.', hint: 'Run the set-up again.' })
  })

  test('that is not here, too weak, vulnerable or without the feature is refused, each by its code', async () => {
    const runc = driver('runc', 'process', {}, { checkpoint: false })
    expect(await choose([runc], { runtime: 'firecracker' })).toMatchObject({ code: 'runtime/unavailable' })
    expect(await choose([runc], { runtime: 'runc', isolationFloor: 'kernel' })).toMatchObject({ code: 'runtime/unsupported' })
    expect(await choose([runc], { runtime: 'runc', features: ['checkpoint'] })).toMatchObject({ code: 'runtime/unsupported' })
    expect(await choose([driver('runc', 'process', hole)], { runtime: 'runc' })).toMatchObject({ code: 'runtime/vulnerable', hint: 'Install runc 1.1.12 or later.' })
  })

  test('is looked at again when it may have come up', async () => {
    const clock = new FakeClock()
    const docker = driver('docker', 'process', down)
    const runtimes = new Runtimes([docker], { runtimePreference: [], refuseVulnerable: true }, clock, silentLog)
    const { signal } = new AbortController()
    await runtimes.probe(signal)
    docker.faults.probe = {}
    expect(await runtimes.reprobe(signal)).toBe(false)
    await clock.advance(10_000)
    expect(await runtimes.reprobe(signal)).toBe(true)
    expect(runtimes.choose({ ...NEEDS, runtime: 'docker' }).decision.runtime).toBe('docker')
  })
})

test('a probe that throws makes the runtime unusable, not the start', async () => {
  const broken = driver('runc', 'process')
  broken.probe = () => Promise.reject(new Error('boom'))
  expect(await choose([broken], { runtime: 'runc' })).toMatchObject({ code: 'runtime/unavailable', message: expect.stringContaining('probe failed') as string })
})

test('two drivers of one name are refused', () => {
  expect(() => new Runtimes([driver('runc', 'process'), driver('runc', 'process')], { runtimePreference: [], refuseVulnerable: true }, systemClock, silentLog)).toThrow(FaasError)
})
