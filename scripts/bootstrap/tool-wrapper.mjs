/**
 * How a tool appears in `.tools/bin`: a symbolic link where the program needs
 * nothing, else a small shell wrapper that ends in `exec`, so that pid,
 * signals and stdio stay those of the program.
 */
import { chmodSync, mkdirSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const MULTIARCH = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }

const WRAPPERS = {
  /** iptables looks for its extensions in a compiled-in directory of the host. */
  xtables: (real, root) =>
    `XTABLES_LIBDIR=${quote(join(root, 'usr/lib', MULTIARCH[process.arch] ?? '', 'xtables'))} exec ${quote(real)} "$@"`,

  /**
   * crun refuses a hybrid layout whose v2 tree still holds a controller (often
   * hugetlb). In a mount namespace of its own without the v2 tree it uses v1
   * alone, limits included. Mounts made on the host later still arrive
   * (slave propagation). Can go when the host is pure v2.
   */
  'legacy-cgroups': (real) =>
    [
      'v2=/sys/fs/cgroup/unified',
      'if { read -r controllers <$v2/cgroup.controllers; } 2>/dev/null && [ -n "$controllers" ]; then',
      `  exec unshare --mount --propagation slave /bin/sh -c 'umount /sys/fs/cgroup/unified && exec "$0" "$@"' ${quote(real)} "$@"`,
      'fi',
      `exec ${quote(real)} "$@"`,
    ].join('\n'),
}

/**
 * @param {{ binDir: string, name: string, real: string, root: string, wrapper?: keyof typeof WRAPPERS }} options
 * @returns {string} The path in `binDir`; replaced atomically.
 */
export function linkTool({ binDir, name, real, root, wrapper }) {
  mkdirSync(binDir, { recursive: true })
  const path = join(binDir, name)
  const next = `${path}.new`
  rmSync(next, { force: true })
  if (wrapper) {
    writeFileSync(next, `#!/bin/sh\n${WRAPPERS[wrapper](real, root)}\n`)
    chmodSync(next, 0o755)
  } else {
    symlinkSync(real, next)
  }
  renameSync(next, path)
  return path
}

function quote(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`
}
