import { describe, expect, it } from 'vitest'
import { CgroupHost } from './cgroups.js'

const line = (mountPoint: string, kind: string, options: string): string => `31 23 0:27 / ${mountPoint} rw,relatime shared:9 - ${kind} ${kind} rw,${options}`
const V1 = ['cpu,cpuacct', 'memory', 'pids', 'freezer', 'name=systemd'].map((one) => line(`/sys/fs/cgroup/${one.replace('name=', '')}`, 'cgroup', one))
const LIMITS = { memoryBytes: 1024, cpuCores: 1.5, pidsMax: 7 }

describe('the cgroups of a host', () => {
  it('are v2 when only the unified hierarchy is there', () => {
    const host = CgroupHost.detect(line('/sys/fs/cgroup', 'cgroup2', 'nsdelegate'))
    expect([host.version, host.unifiedBeside]).toEqual([2, null])
    expect(host.directories('/a/b')).toEqual(['/sys/fs/cgroup/a/b'])
    expect(host.limits('/a', LIMITS)).toContainEqual(['/sys/fs/cgroup/a/cpu.max', '150000 100000'])
    expect(host.delegate('/a')).toEqual([['/sys/fs/cgroup/a/cgroup.subtree_control', '+cpu +memory +pids']])
  })

  it('are v1 with co-mounted controllers counted once', () => {
    const host = CgroupHost.detect(V1.join('\n'))
    expect([host.version, host.unifiedBeside]).toEqual([1, null])
    expect(host.ownDirectories('/a')).toEqual(['/sys/fs/cgroup/memory/a', '/sys/fs/cgroup/cpu,cpuacct/a', '/sys/fs/cgroup/pids/a', '/sys/fs/cgroup/freezer/a'])
    expect(host.freeze('/a', true)).toEqual(['/sys/fs/cgroup/freezer/a/freezer.state', 'FROZEN'])
  })

  it('are v1 with the unified hierarchy beside it on a hybrid host', () => {
    const host = CgroupHost.detect([...V1, line('/sys/fs/cgroup/unified', 'cgroup2', 'nsdelegate')].join('\n'))
    expect([host.version, host.unifiedBeside]).toEqual([1, '/sys/fs/cgroup/unified'])
    expect(host.directories('/a')).toContain('/sys/fs/cgroup/unified/a')
    expect(host.limits('/a', LIMITS)).toContainEqual(['/sys/fs/cgroup/memory/a/memory.limit_in_bytes', '1024'])
  })

  it('this one has counted no kills in a group that does not exist', () => {
    expect(CgroupHost.detect().oomKills('/faas-no-such-group')).toBe(0)
  })
})
