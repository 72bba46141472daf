/**
 * The named ways out that are tried in every runtime. Names are those of the probe binary.
 *
 * `guest`: acts on the kernel that the guest runs on. Where that kernel is the host's it must be refused; a runtime with
 * a kernel of its own (gVisor, microVM) may let the guest do it to that kernel, as long as the host shows no change.
 * `host`: reaches for something of the host. Must be refused everywhere.
 */
export type EscapeKind = 'guest' | 'host'

export const ESCAPE_ATTEMPTS: Readonly<Record<string, EscapeKind>> = {
  'cgroup-release-agent': 'guest', 'cgroup-v2-mount': 'guest', 'cgroup-limits-raise': 'host', 'cgroup-devices-allow': 'host',
  'core-pattern': 'guest', 'modprobe-path': 'guest', 'uevent-helper': 'guest', 'sysctl-write': 'guest', 'binfmt-misc': 'guest', sysrq: 'guest',
  'mknod-block-device': 'host', 'mknod-memory': 'host', 'dev-mem': 'host', kcore: 'host', 'kernel-log': 'guest', 'kernel-addresses': 'guest',
  'mount-tmpfs': 'guest', 'mount-proc-fresh': 'guest', 'unmask-proc': 'guest', 'remount-proc-writable': 'guest', 'bind-mount': 'guest',
  'new-mount-api': 'guest', 'pivot-root': 'guest', 'userns-mount': 'guest', 'unshare-namespaces': 'guest', 'setns-init': 'guest',
  'ptrace-host-process': 'host', 'proc-root-traversal': 'host', 'leaked-descriptors': 'host', 'symlink-traversal': 'host', 'chroot-breakout': 'host',
  'open-by-handle': 'host', 'overwrite-init-binary': 'host', 'overwrite-runtime-binary': 'host', 'ptrace-init': 'guest', 'read-init-memory': 'guest',
  'steal-init-descriptor': 'guest', 'agent-socket-from-guest': 'host', 'load-module': 'guest', bpf: 'guest', userfaultfd: 'guest', keyring: 'guest',
  'perf-events': 'guest', 'io-uring': 'guest', kexec: 'guest', reboot: 'guest', 'set-clock': 'guest', 'set-host-name': 'guest', 'swap-on': 'guest',
  'io-ports': 'guest', 'process-accounting': 'guest', 'quota-control': 'guest', 'raw-socket': 'guest', vsock: 'host', 'netfilter-netlink': 'guest',
  'abstract-socket-of-host': 'host', 'host-loopback': 'host', 'cloud-metadata': 'host', 'docker-socket': 'host',
}
