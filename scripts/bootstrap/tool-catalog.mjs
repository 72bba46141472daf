/**
 * Every tool the platform uses, where it comes from in order of preference,
 * and which known escapes a version is fixed against.
 */

/**
 * @typedef {{ suite: string, packages: string[], path: string }} Candidate
 * @typedef {object} ToolSpec
 * @property {string} name File name in `.tools/bin`.
 * @property {Candidate[]} from Tried in order; the first that passes its proof is used.
 * @property {boolean} [preferHost] Use the host's own program when it has one.
 * @property {string[]} [versionArgs] How to ask for the version; the package version is used when absent.
 * @property {'xtables' | 'legacy-cgroups'} [wrapper] See tool-wrapper.mjs.
 * @property {'runsc-root-netns'} [patch] See tool-patch.mjs.
 * @property {'bundle' | 'criu-check'} [proof] `bundle`: must really run a busybox container on this host; `criu-check`: CRIU's own check.
 * @property {string} lost What does not work without it.
 */

/** Newest first: fixes for known escapes arrive there first. */
const SUITES = ['sid', 'trixie', 'bookworm']

const from = (packages, path, suites = SUITES) =>
  suites.map((suite) => ({ suite, packages: [packages].flat(), path }))

const ENGINE_LOST = 'a Docker Engine started by this project (an engine of the host still works)'

/** @type {ToolSpec[]} */
export const TOOLS = [
  // sid's libc asks terminals by an ioctl that gVisor does not know.
  { name: 'busybox', from: from('busybox-static', 'usr/bin/busybox', ['trixie', 'bookworm']), lost: 'the faas/base image can not be built' },
  {
    name: 'runc',
    from: from('runc', 'usr/sbin/runc'),
    versionArgs: ['--version'],
    proof: 'bundle',
    lost: 'the runc runtime, and Docker started by this project',
  },
  {
    name: 'runsc',
    // sid's build of this version panics at random: its Go is newer than the runtime structures that gVisor reads.
    from: from('runsc', 'usr/bin/runsc', ['bookworm-backports', 'trixie']),
    versionArgs: ['--version'],
    proof: 'bundle',
    patch: 'runsc-root-netns',
    lost: 'the gVisor runtime (the strongest isolation without KVM)',
  },
  {
    name: 'crun',
    // bookworm's 1.8.1 is too old for the wrapper's cgroup layout; libcriu2 is opened at run time
    from: from(['crun', 'libcriu2'], 'usr/bin/crun', ['sid', 'trixie']),
    wrapper: 'legacy-cgroups',
    versionArgs: ['--version'],
    proof: 'bundle',
    lost: 'the crun runtime',
  },
  { name: 'nft', from: from('nftables', 'usr/sbin/nft'), preferHost: true, versionArgs: ['--version'], lost: 'network policy "egress"' },
  {
    name: 'ip',
    from: [
      { suite: 'sid', packages: ['iproute2'], path: 'usr/bin/ip' },
      { suite: 'trixie', packages: ['iproute2'], path: 'usr/bin/ip' },
      { suite: 'bookworm', packages: ['iproute2'], path: 'bin/ip' },
    ],
    preferHost: true,
    versionArgs: ['-V'],
    lost: 'network policy "egress"',
  },
  // Docker's bridges use the first two, CRIU's network lock the -restore and -save forms.
  ...['iptables', 'ip6tables', 'iptables-save', 'iptables-restore', 'ip6tables-save', 'ip6tables-restore'].map((name) => ({
    name,
    from: from('iptables', `usr/sbin/${name.replace(/^(ip6?tables)/, '$1-nft')}`),
    preferHost: true,
    wrapper: 'xtables',
    ...(name.includes('-') ? {} : { versionArgs: ['--version'] }),
    lost: 'bridge networking of a Docker Engine started by this project, and checkpoints of sandboxes with a network namespace',
  })),
  {
    name: 'criu',
    // bookworm's 3.17 fails on newer kernels (vDSO bounds)
    from: from('criu', 'usr/sbin/criu', ['sid', 'trixie']),
    versionArgs: ['--version'],
    proof: 'criu-check',
    lost: 'memory checkpoints and forks on runc, crun and docker',
  },
  // trixie's 26.1 gets security updates and restores checkpoints; sid's 28.5 can not restore one into a
  // network namespace of its own ("bind-mount /proc/0/ns/net").
  ...[
    ['dockerd', 'docker.io', 'usr/sbin/dockerd'],
    ['docker-proxy', 'docker.io', 'usr/sbin/docker-proxy'],
    ['containerd', 'containerd', 'usr/bin/containerd'],
    ['containerd-shim-runc-v2', 'containerd', 'usr/bin/containerd-shim-runc-v2'],
  ].map(([name, pkg, path]) => ({
    name,
    from: from(pkg, path, ['trixie', 'sid']),
    ...(['dockerd', 'containerd'].includes(name) ? { versionArgs: ['--version'] } : {}),
    lost: ENGINE_LOST,
  })),
  {
    name: 'docker-init',
    from: [
      { suite: 'trixie', packages: ['tini'], path: 'usr/bin/tini-static' },
      { suite: 'sid', packages: ['tini-static'], path: 'usr/bin/tini-static' },
    ],
    versionArgs: ['--version'],
    lost: ENGINE_LOST,
  },
  {
    name: 'docker-registry',
    from: from('docker-registry', 'usr/bin/docker-registry'),
    versionArgs: ['--version'],
    lost: 'the tests against a local image registry',
  },
]

/**
 * Known escapes, with the first fixed upstream version of each line and the
 * Debian revisions that carry a backport.
 */
const ADVISORIES = {
  runc: [
    { id: 'CVE-2024-21626', fixed: ['1.1.12'], debian: ['1.1.5+ds1-1+deb12u1'] },
    ...['CVE-2025-31133', 'CVE-2025-52565', 'CVE-2025-52881'].map((id) => ({
      id,
      fixed: ['1.2.8', '1.3.3', '1.4.0'],
      debian: [],
    })),
  ],
  crun: [{ id: 'CVE-2025-24965', fixed: ['1.20'], debian: [] }],
}

/**
 * @param {string} tool @param {string} version A Debian or upstream version.
 * @returns {string[] | undefined} One line per advisory that concerns the tool.
 */
export function cveNotes(tool, version) {
  return ADVISORIES[tool]?.map(({ id, fixed, debian }) => {
    const ok = debian.includes(version) || isFixed(upstream(version), fixed)
    return `${id}: ${ok ? 'fixed' : 'NOT FIXED'}`
  })
}

/** `1:1.3.6+ds1-1` → `1.3.6` */
export function upstream(version) {
  return version.replace(/^\d+:/, '').replace(/[+~-].*$/, '')
}

/** Fixed lines are ascending; a version counts as fixed in its own line or above the last one. */
function isFixed(version, fixed) {
  const line = (value) => value.split('.').slice(0, 2).join('.')
  const own = fixed.find((candidate) => line(candidate) === line(version))
  if (own) return compareVersions(version, own) >= 0
  return compareVersions(version, fixed[fixed.length - 1]) >= 0
}

/** Dotted numbers only. @returns {number} < 0, 0 or > 0 */
export function compareVersions(a, b) {
  const left = a.split('.').map(Number)
  const right = b.split('.').map(Number)
  for (let index = 0; index < Math.max(left.length, right.length); index += 1) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
