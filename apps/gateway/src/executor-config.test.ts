import { parseConfig } from '@faas-platform/config'
import { describe, expect, it } from 'vitest'
import { executorConfig } from './executor-config.js'

function config(env: Readonly<Record<string, string>>) {
  return parseConfig({ argv: [], env, host: { isRoot: true, homeDir: '/', cpuCount: 2, totalMemoryBytes: 2 ** 32, xdgDataHome: undefined }, readFile: () => '' }).config
}

const runtimePreference = (settings: ReturnType<typeof config>) => executorConfig(settings, { cores: 2, memoryBytes: 2 ** 32 }).runtimePreference

describe('the order of auto', () => {
  it('is as listed where no key is demanded, and strongest first where one is', () => {
    const FAAS_RUNTIMES = 'crun,runc,gvisor,docker'
    expect(runtimePreference(config({ FAAS_RUNTIMES }))).toEqual(['crun', 'runc', 'gvisor', 'docker'])
    expect(runtimePreference(config({ FAAS_RUNTIMES, FAAS_HOST: '0.0.0.0' }))).toEqual(['gvisor', 'crun', 'runc', 'docker'])
    expect(runtimePreference(config({ FAAS_RUNTIMES, FAAS_HOST: '0.0.0.0', FAAS_RUNTIME_ORDER: 'listed' }))).toEqual(['crun', 'runc', 'gvisor', 'docker'])
    expect(runtimePreference(config({ FAAS_RUNTIMES, FAAS_RUNTIME_ORDER: 'strongest' }))).toEqual(['gvisor', 'crun', 'runc', 'docker'])
  })
})

describe("the executor's slice", () => {
  it('carries the settings in the units of the executor', () => {
    const slice = executorConfig(config({ FAAS_POOL_MEMORY_MB: '3', FAAS_RETAIN_MS: '0', FAAS_DISABLE_PREWARM: 'yes', FAAS_ALLOW_VULNERABLE_RUNTIMES: 'true', FAAS_MAX_QUEUE: '5' }), { cores: 2, memoryBytes: 2 ** 32 })
    expect(slice.pool).toMatchObject({ memoryBytesMax: 3 * 1024 * 1024, enabled: false })
    expect([slice.retention.enabled, slice.refuseVulnerable, slice.queueMax]).toEqual([false, false, 5])
  })
})
