/**
 * Known container escapes and the versions that close them. Dated data: an entry is added when an advisory appears.
 * Entries cover what a guest, or a hostile image, can do to the host; not what an administrator can.
 */
import type { Vulnerability } from './ports.js'

/** The day this table was last brought up to date with the projects' advisories. */
export const ADVISORIES_AS_OF = '2026-11-21'

interface Advisory {
  readonly id: string
  readonly summary: string
  /** First fixed version of each upstream line (`major.minor`), ascending; newer lines than the last have the fix. */
  readonly fixed: readonly string[]
  /** Distribution versions that carry a backport, as the distribution writes them, without epoch; later revisions of them have it too. */
  readonly backports: readonly string[]
}

export type RuntimeComponent = 'runc' | 'crun' | 'gvisor'

const ADVISORIES: Readonly<Record<RuntimeComponent, readonly Advisory[]>> = {
  runc: [
    {
      id: 'CVE-2024-21626',
      summary: 'A leaked descriptor of the host file system lets an image or a process leave the container.',
      fixed: ['1.1.12'],
      backports: ['1.1.5+ds1-1+deb12u1'],
    },
    {
      id: 'CVE-2025-31133',
      summary: 'Replacing /dev/null in the container defeats masked paths and gives write access to the host.',
      fixed: ['1.2.8', '1.3.3', '1.4.0'],
      backports: [],
    },
    {
      id: 'CVE-2025-52565',
      summary: 'A race on /dev/console bind-mounts a path of the attacker\'s choice before protections are applied.',
      fixed: ['1.2.8', '1.3.3', '1.4.0'],
      backports: [],
    },
    {
      id: 'CVE-2025-52881',
      summary: 'Writes to /proc can be redirected, which bypasses LSM labels and reaches host settings.',
      fixed: ['1.2.8', '1.3.3', '1.4.0'],
      backports: [],
    },
  ],
  crun: [
    {
      id: 'CVE-2025-24965',
      summary: 'The krun handler can be led out of the root file system by the image.',
      fixed: ['1.20'],
      backports: [],
    },
  ],
  gvisor: [],
}

/**
 * What this version is open to.
 * @param version As the program or the distribution writes it: `1.3.6`, `1.1.5+ds1-1+deb12u1`.
 * @param revision The distribution's version, when the program prints it beside its own.
 */
export function knownVulnerabilities(component: RuntimeComponent, version: string, revision = version): readonly Vulnerability[] {
  const [plain, packaged] = [version, revision].map((text) => text.replace(/^v/, '').replace(/^\d+:/, '')) as [string, string]
  return ADVISORIES[component]
    .filter(({ fixed, backports }) => !backports.some((backport) => isSameOrLater(packaged, backport)) && !hasFix(upstreamVersion(plain), fixed))
    .map(({ id, fixed, summary }) => ({ id, fixedIn: fixed.join(', '), summary }))
}

/** `1:1.3.6+ds1-1` → `1.3.6`, `1.2.0-rc.1` → `1.2.0-rc.1`: a release candidate comes before its release. */
function upstreamVersion(version: string): string {
  return /^\d+(?:\.\d+)*(?:-rc\.?\d+)?/.exec(version)?.[0] ?? ''
}

/** `1.1.5+ds1-1+deb12u3` is a later revision of `1.1.5+ds1-1+deb12u1`. */
function isSameOrLater(revision: string, backport: string): boolean {
  const parts = (text: string): readonly [string, number] => {
    const match = /^(.*\+deb\d+u)(\d+)/.exec(text)
    return [match?.[1] ?? text, Number(match?.[2] ?? 0)]
  }
  const [base, number] = parts(revision)
  const [fixedBase, fixedNumber] = parts(backport)
  return base === fixedBase && number >= fixedNumber
}

/** A version that can not be read has no fix. */
function hasFix(version: string, fixed: readonly string[]): boolean {
  const [release = '', candidate] = version.split('-')
  if (release === '') return false
  const line = (text: string): string => text.split('.').slice(0, 2).join('.')
  const target = fixed.find((entry) => line(entry) === line(release)) ?? fixed[fixed.length - 1] ?? ''
  const order = compareDotted(release, target)
  return order > 0 || (order === 0 && candidate === undefined)
}

function compareDotted(a: string, b: string): number {
  const left = a.split('.').map(Number)
  const right = b.split('.').map(Number)
  for (let index = 0; index < Math.max(left.length, right.length); index++) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}
