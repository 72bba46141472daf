import { setTimeout as delay } from 'node:timers/promises'
import { isFaasError, MIB, type SandboxExit } from '@faas-platform/core'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { PATH_ENV, realDriver, sh, type RealDriver } from './testing/real-driver.js'

const signal = AbortSignal.timeout(300_000)
let real: RealDriver

beforeAll(async () => {
  real = await realDriver()
})

afterAll(async () => {
  await real[Symbol.asyncDispose]()
})

async function thrown(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  )
}

describe('the docker driver on a real engine', () => {
  test('the probe starts a container that answers, and says how', async () => {
    const report = await real.driver.probe(signal)
    expect(report.facts.filter(({ ok }) => !ok)).toEqual([])
    expect(report.usable).toBe(true)
    expect(report.facts.find(({ name }) => name === 'agent')?.evidence).toMatch(/bind, socket/)
  })

  test('a command runs with its own streams, environment, directory and exit code', async () => {
    await using sandbox = await real.driver.create(real.spec({ hostname: 'my-host' }), { signal })
    const ran = await sh(sandbox, 'echo out; echo err >&2; echo $GREETING; pwd; hostname; id -u; exit 3', { env: { ...PATH_ENV, GREETING: 'hi' }, cwd: '/tmp' })
    expect(ran.stdout).toBe('out\nhi\n/tmp\nmy-host\n0\n')
    expect(ran.stderr).toBe('err\n')
    expect(ran.exit.exitCode).toBe(3)
  })

  test('the time budget names every phase of a creation', async () => {
    await using sandbox = await real.driver.create(real.spec(), { signal })
    expect(Object.keys(sandbox.timeBudget)).toEqual(['prepare', 'engine_create', 'engine_start', 'engine_inspect', 'agent_connect'])
  })

  test('nothing of an ended sandbox is left, and ending it twice is fine', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    expect(await real.driver.list(signal)).toContain(sandbox.id)
    await sandbox[Symbol.asyncDispose]()
    await sandbox[Symbol.asyncDispose]()
    expect(await real.driver.list(signal)).not.toContain(sandbox.id)
    expect((await sandbox.exited).reason).toBe('destroyed')
    expect(isFaasError(await thrown(sh(sandbox, 'true')), 'sandbox/destroyed')).toBe(true)
  })

  test('an aborted creation leaves nothing', async () => {
    const spec = real.spec()
    const abort = new AbortController()
    const making = thrown(real.driver.create(spec, { signal: abort.signal }))
    setTimeout(() => {
      abort.abort(new Error('enough'))
    }, 20)
    expect(await making).toEqual(new Error('enough'))
    expect(await real.driver.list(signal)).not.toContain(spec.id)
  })

  test('a missing image is said to be missing', async () => {
    const image = { ...real.image, digest: `sha256:${'0'.repeat(64)}` as typeof real.image.digest }
    expect(isFaasError(await thrown(real.driver.create(real.spec({ image }), { signal })), 'image/not-found')).toBe(true)
    expect(isFaasError(await thrown(real.driver.prepareImage(image, signal)), 'image/not-found')).toBe(true)
  })

  test('the guest is confined: few capabilities, no new privileges, seccomp, no network, no swap', async () => {
    await using sandbox = await real.driver.create(real.spec(), { signal })
    const { stdout } = await sh(sandbox, 'grep -E "^(CapBnd|CapEff|NoNewPrivs|Seccomp):" /proc/self/status; ls /sys/class/net; ls -A /dev | sort | tr "\\n" " "; cat /proc/1/oom_score_adj /proc/self/oom_score_adj')
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT
    expect(stdout).toContain('CapBnd:\t00000000000405fb')
    expect(stdout).toContain('CapEff:\t00000000000405fb')
    expect(stdout).toContain('NoNewPrivs:\t1')
    expect(stdout).toContain('Seccomp:\t2')
    expect(stdout).toContain('lo\n')
    expect(stdout).not.toContain('eth0')
    expect(stdout).toContain('500\n900\n')
  })

  test('loopback works inside a sandbox and is its own', async () => {
    await using first = await real.driver.create(real.spec(), { signal })
    await using second = await real.driver.create(real.spec(), { signal })
    const fetched = await sh(first, 'mkdir /www; echo hello > /www/f; httpd -p 127.0.0.1:8080 -h /www; wget -q -O - http://127.0.0.1:8080/f')
    expect(fetched.stdout).toBe('hello\n')
    expect((await sh(second, 'wget -q -O - http://127.0.0.1:8080/f')).exit.exitCode).not.toBe(0)
  })

  test('a memory bomb is killed, told apart, and the sandbox lives on', async () => {
    await using sandbox = await real.driver.create(real.spec({ limits: { memoryBytes: 64 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB } }), { signal })
    const bomb = await sh(sandbox, 'exec tail /dev/zero')
    expect(bomb.exit).toMatchObject({ signal: 'SIGKILL', oomKilled: true })
    expect((await sh(sandbox, 'echo alive')).stdout).toBe('alive\n')
    expect((await sandbox.stats()).oomKills).toBeGreaterThan(0)
  })

  test('a disk filler is ended for its disk limit', async () => {
    await using sandbox = await real.driver.create(real.spec({ limits: { memoryBytes: 128 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 8 * MIB } }), { signal })
    const error = await thrown(sh(sandbox, 'dd if=/dev/zero of=/big bs=1M count=64; sleep 60'))
    expect(isFaasError(error, 'execution/disk-limit')).toBe(true)
    expect((await sandbox.exited).reason).toBe('disk_limit')
  })

  test('figures come from the host and grow with what the guest does', async () => {
    await using sandbox = await real.driver.create(real.spec(), { signal })
    const before = await sandbox.stats()
    await sh(sandbox, 'dd if=/dev/zero of=/file bs=1M count=5 2>/dev/null; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done')
    const after = await sandbox.stats()
    expect(after.cpuMs).toBeGreaterThan(before.cpuMs)
    expect((after.writableBytes ?? 0) - (before.writableBytes ?? 0)).toBeGreaterThanOrEqual(5 * MIB)
    expect(after.pids).toBe(1)
    expect(after.memoryPeakBytes).toBeGreaterThanOrEqual(after.memoryBytes)
  })

  test('a paused sandbox does not answer until it is resumed; both can be repeated', async () => {
    await using sandbox = await real.driver.create(real.spec(), { signal })
    await sandbox.pause()
    await sandbox.pause()
    const pending = sh(sandbox, 'echo back')
    expect(await Promise.race([pending, delay(200, 'waiting')])).toBe('waiting')
    await sandbox.resume()
    await sandbox.resume()
    expect((await pending).stdout).toBe('back\n')
  })

  test('a paused sandbox can be ended', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    await sandbox.pause()
    await sandbox[Symbol.asyncDispose]()
    expect(await real.driver.list(signal)).not.toContain(sandbox.id)
  })

  test('limits of a live sandbox can be changed', async () => {
    await using sandbox = await real.driver.create(real.spec(), { signal })
    await sandbox.updateLimits({ memoryBytes: 32 * MIB, cpuCores: 0.5, pidsMax: 10, writableBytesMax: 64 * MIB })
    const bomb = await sh(sandbox, 'exec tail /dev/zero')
    expect(bomb.exit.oomKilled).toBe(true)
    await sandbox.updateLimits({ memoryBytes: 256 * MIB, cpuCores: 1, pidsMax: 64, writableBytesMax: 64 * MIB })
    expect((await sh(sandbox, 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max')).stdout.trim()).toBe(String(256 * MIB))
  })

  test('a sandbox whose container somebody removes is lost, and says so to whoever waits', async () => {
    const sandbox = await real.driver.create(real.spec(), { signal })
    const running = thrown(sh(sandbox, 'sleep 60'))
    const other = await realDriver({ dataDirId: real.options.dataDirId })
    try {
      expect((await other.driver.reclaim(new Set(), signal)).sandboxes).toBeGreaterThanOrEqual(1)
    } finally {
      await other[Symbol.asyncDispose]()
    }
    const exit: SandboxExit = await sandbox.exited
    expect(exit.reason).toBe('lost')
    expect(isFaasError(await running, 'sandbox/lost')).toBe(true)
    await sandbox[Symbol.asyncDispose]()
  })

  test('reclaiming keeps what it is told to keep and what is in use', async () => {
    await using used = await real.driver.create(real.spec(), { signal })
    const report = await real.driver.reclaim(new Set(), signal)
    expect(report.sandboxes).toBe(0)
    expect((await sh(used, 'echo alive')).stdout).toBe('alive\n')
  })

  test('network egress is refused while it can not be guaranteed', async () => {
    expect(isFaasError(await thrown(real.driver.create(real.spec({ network: { mode: 'egress', allowCidrs: [] } }), { signal })), 'network/unavailable')).toBe(true)
  })
})

test('a seccomp profile of our own takes the place of the engine\'s', async () => {
  const seccompProfile = { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ names: ['mkdir', 'mkdirat'], action: 'SCMP_ACT_ERRNO', errnoRet: 28 }] }
  await using own = await realDriver({ seccompProfile })
  await using sandbox = await own.driver.create(own.spec(), { signal })
  expect((await sh(sandbox, 'mkdir /x')).stderr).toContain('No space left on device')
})
