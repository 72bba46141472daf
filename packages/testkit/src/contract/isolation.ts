/** Contract: what a guest sees of the machine. Only for runtimes that have a kernel between guest and host. */
import { createServer, type Server } from 'node:net'
import { networkInterfaces } from 'node:os'
import { SANDBOX_CAPABILITIES } from '@faas-platform/core'
import { expect, it } from 'vitest'
import type { Bench } from './bench.js'

/** Bit numbers of linux/capability.h. */
const CAPABILITY_BITS: Readonly<Record<string, number>> = {
  CAP_CHOWN: 0, CAP_DAC_OVERRIDE: 1, CAP_FOWNER: 3, CAP_FSETID: 4, CAP_KILL: 5, CAP_SETGID: 6, CAP_SETUID: 7, CAP_SETPCAP: 8,
  CAP_NET_BIND_SERVICE: 10, CAP_SYS_CHROOT: 18,
}
const STANDARD_DEVICES = ['console', 'core', 'fd', 'full', 'mqueue', 'null', 'ptmx', 'pts', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'tty', 'urandom', 'zero']

export function isolationTests(bench: () => Bench): void {
  const guest = async (script: string): Promise<string> => (await bench().run(await bench().sandbox(), script)).out
  const isProcessClass = (): boolean => bench().driver.features.isolation === 'process'

  it('process 1 is the agent and the guest sees its own processes only', async () => {
    expect(await guest('tr "\\0" " " < /proc/1/cmdline')).toMatch(/agent/)
    const pids = (await guest('ls /proc | grep -c "^[0-9][0-9]*$"')).trim()
    expect(Number(pids)).toBeLessThan(8)
  })

  it('no capability beyond the agreed set, in any of the five sets', async () => {
    const allowed = SANDBOX_CAPABILITIES.reduce((mask, name) => mask | (1n << BigInt(CAPABILITY_BITS[name] ?? 63)), 0n)
    const status = await guest('grep -E "^Cap(Inh|Prm|Eff|Bnd|Amb):" /proc/self/status')
    const sets = [...status.matchAll(/^(Cap\w+):\s*([0-9a-f]+)$/gm)]
    expect(sets.length).toBeGreaterThanOrEqual(4)
    for (const [, name, hex] of sets) expect(BigInt(`0x${hex ?? ''}`) & ~allowed, `${name} = ${hex}`).toBe(0n)
  })

  it('no new privileges and a seccomp filter are on', async () => {
    const status = await guest('grep -E "^(NoNewPrivs|Seccomp):" /proc/self/status | tr -d " \\t"')
    // gVisor's own kernel is the filter; what it shows of Seccomp is about the guest's own filters.
    if (isProcessClass()) expect(status).toBe('NoNewPrivs:1\nSeccomp:2\n')
    else expect(status).toContain('Seccomp:')
  })

  it.each(['/proc/kcore', '/proc/keys', '/proc/timer_list', '/proc/sched_debug', '/proc/latency_stats'])('%s can not be read', async (path) => {
    const bytes = Number((await guest(`head -c 64 ${path} 2>/dev/null | wc -c`)).trim())
    expect(bytes).toBe(0)
  })

  it.each(['/sys/firmware', '/proc/acpi', '/proc/scsi'])('%s is empty or absent', async (path) => {
    expect((await guest(`ls -A ${path} 2>/dev/null | wc -l`)).trim()).toBe('0')
  })

  it.each(['/proc/sysrq-trigger', '/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/vm/drop_caches', '/proc/bus', '/proc/irq', '/sys/kernel/uevent_helper', '/sys/fs/cgroup/probe'])('%s can not be written', async (path) => {
    expect(await guest(`(echo 1 > ${path}) 2>/dev/null && echo written || echo refused`)).toBe('refused\n')
  })

  it('only the standard devices are there', async () => {
    const devices = (await guest('ls /dev')).trim().split(/\s+/)
    // gVisor's kernel makes devices of its own, which are nothing of the host's.
    const allowed = isProcessClass() ? STANDARD_DEVICES : [...STANDARD_DEVICES, 'fuse', 'net']
    expect(devices.filter((name) => !allowed.includes(name))).toEqual([])
  })

  it('a device node can be neither made nor used', async () => {
    expect(await guest('mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk >/dev/null 2>&1 && echo open || echo refused')).toBe('refused\n')
  })

  it.each([
    ['mount a tmpfs', 'mount -t tmpfs none /mnt'],
    ['mount a proc', 'mount -t proc none /tmp'],
    ['remount the root', 'mount -o remount,rw /'],
    ['bind over a masked path', 'mount --bind /etc /proc/sys'],
    ['unmount proc', 'umount -l /proc'],
    ['set the host name', 'hostname other'],
    ['reboot', 'reboot -f'],
    ['load a module', 'insmod /tmp/module.ko'],
    ['swap on a file', 'swapon /tmp/file'],
    ['enter a host namespace', 'nsenter -t 1 -m -u -n true && test ! -e /proc/1/cmdline'],
    ['change a link', 'ip link set lo mtu 1000'],
  ])('the guest can not %s', async (_, command) => {
    const sandbox = await bench().sandbox()
    const { out } = await bench().run(sandbox, `mkdir -p /mnt; dd if=/dev/zero of=/tmp/file bs=64k count=1 2>/dev/null; cp /tmp/file /tmp/module.ko; (${command}) >/dev/null 2>&1 && echo done || echo refused`)
    expect(out).toBe('refused\n')
  })

  it('the guest can not set the clock of the host', async () => {
    const out = await guest('date -s 2001-01-01 2>&1')
    // A kernel of the guest's own may take it for itself. The exit code says nothing: busybox 1.37 ends with 0.
    if (isProcessClass()) expect(out).toContain('not permitted')
    expect(new Date().getFullYear()).toBeGreaterThan(2024)
  })

  it('without network there is only the loopback, no route, and a connection fails at once', async () => {
    expect((await guest("tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '")).trim().split('\n').filter((name) => name !== 'lo' && name !== '')).toEqual([])
    expect((await guest('tail -n +2 /proc/net/route')).trim()).toBe('')
    const started = performance.now()
    expect(await guest('nc -w 5 1.1.1.1 53 </dev/null >/dev/null 2>&1 && echo connected || echo refused')).toBe('refused\n')
    expect(performance.now() - started).toBeLessThan(bench().ms(4_000))
  })

  it('the loopback of a sandbox is up and its own', async () => {
    const sandbox = await bench().sandbox()
    expect((await bench().run(sandbox, 'echo hi | nc -l -p 4567 -w 3 127.0.0.1 >/tmp/got 2>/dev/null & for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; echo ping | nc -w 1 127.0.0.1 4567 && break; done 2>/dev/null')).out).toContain('hi')
  })
}

export function egressTests(bench: () => Bench): void {
  const refused = async (): Promise<void> => {
    await expect(bench().sandbox({ network: { mode: 'egress', allowCidrs: [] } })).rejects.toMatchObject({ code: 'network/unavailable' })
  }

  it('egress reaches nothing of the host, private ranges or metadata, unless allowed by name', async () => {
    if (!bench().driver.features.network.includes('egress')) return refused()
    const host = Object.values(networkInterfaces()).flat().find((one) => one !== undefined && one.family === 'IPv4' && !one.internal)
    expect(host, 'the host needs an address for this test').toBeDefined()
    const server = await listen()
    try {
      const { port } = server.address() as { port: number }
      const attempt = (address: string): string => `nc -w 3 ${address} ${port} </dev/null 2>/dev/null | grep -q reached && echo reached || echo blocked`
      const closed = await bench().sandbox({ network: { mode: 'egress', allowCidrs: [] } })
      const gateway = (await bench().run(closed, "ip route | sed -n 's/^default via \\([0-9.]*\\).*/\\1/p'")).out.trim()
      expect(gateway).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
      for (const address of [host?.address ?? '', gateway, '127.0.0.1', '169.254.169.254', '10.0.0.1', '192.168.0.1']) {
        expect([address, (await bench().run(closed, attempt(address))).out.trim()]).toEqual([address, 'blocked'])
      }
      const opened = await bench().sandbox({ network: { mode: 'egress', allowCidrs: [`${host?.address ?? ''}/32`] } })
      expect((await bench().run(opened, attempt(host?.address ?? ''))).out.trim()).toBe('reached')
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
  })

  it('two egress sandboxes can not reach each other', async () => {
    if (!bench().driver.features.network.includes('egress')) return refused()
    const network = { mode: 'egress', allowCidrs: [] } as const
    const [a, b] = await Promise.all([bench().sandbox({ network }), bench().sandbox({ network })])
    const address = (await bench().run(a, "ip -4 -o addr show scope global | sed -n 's/.*inet \\([0-9.]*\\).*/\\1/p' | grep -v '^127'")).out.trim()
    expect(address).toMatch(/^\d+\.\d+\.\d+\.\d+$/)
    const { handle } = await bench().start(a, 'echo reached | nc -l -p 7000')
    expect((await bench().run(b, `nc -w 3 ${address} 7000 </dev/null 2>/dev/null | grep -q reached && echo reached || echo blocked`)).out.trim()).toBe('blocked')
    await handle.kill('SIGKILL')
    await handle.wait()
  })
}

function listen(): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      socket.on('error', () => socket.destroy())
      socket.end('reached\n')
    })
    server.once('error', reject)
    server.listen(0, '0.0.0.0', () => resolve(server))
  })
}
