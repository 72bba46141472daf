export const VULNERABILITIES_AS_OF = '2026-11-21';
export const KNOWN_ESCAPES = [
    {
        id: 'CVE-2024-21626', runtime: 'runc', fixed: ['1.1.12'], distribution: ['1.1.5+ds1-1+deb12u1'],
        summary: 'A leaked descriptor of the host lets a working directory or command of a container reach the host file system.',
    },
    {
        id: 'CVE-2025-31133', runtime: 'runc', fixed: ['1.2.8', '1.3.3'], distribution: [],
        summary: 'Masked paths can be made to bind-mount other files by replacing /dev/null in a container that starts.',
    },
    {
        id: 'CVE-2025-52565', runtime: 'runc', fixed: ['1.2.8', '1.3.3'], distribution: [],
        summary: 'The mount of /dev/console can be redirected while a container starts.',
    },
    {
        id: 'CVE-2025-52881', runtime: 'runc', fixed: ['1.2.8', '1.3.3'], distribution: [],
        summary: 'Writes to /proc by the runtime can be redirected while a container starts.',
    },
];
/**
 * What this version is open to.
 * @param version As the runtime prints it, `1.3.6+ds1`.
 * @param revision The distribution's package version when the runtime prints it, `1.1.5+ds1-1+deb12u1`.
 */
export function vulnerabilitiesOf(runtime, version, revision) {
    return KNOWN_ESCAPES.filter((escape) => escape.runtime === runtime && !isFixed(escape, version, revision)).map(({ id, fixed, summary }) => ({
        id,
        fixedIn: fixed.join(' or '),
        summary,
    }));
}
function isFixed(escape, version, revision) {
    if (revision !== undefined && escape.distribution.some((fixed) => sameUpstreamNotOlder(revision, fixed)))
        return true;
    const own = numbers(version);
    const newest = escape.fixed.at(-1);
    if (own === null || newest === undefined)
        return false;
    if (compare(own, numbers(newest) ?? []) >= 0)
        return true;
    return escape.fixed.some((fixed) => {
        const at = numbers(fixed) ?? [];
        return at[0] === own[0] && at[1] === own[1] && compare(own, at) >= 0;
    });
}
/** `1.1.5+ds1-1+deb12u3` against `1.1.5+ds1-1+deb12u1`. */
function sameUpstreamNotOlder(revision, fixed) {
    const split = (text) => {
        const match = /^(.*?\+deb\d+u)(\d+)$/.exec(text);
        return match === null ? [text, 0] : [match[1] ?? '', Number(match[2])];
    };
    const [base, number] = split(revision);
    const [fixedBase, fixedNumber] = split(fixed);
    return base === fixedBase && number >= fixedNumber;
}
function numbers(version) {
    const match = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version);
    return match === null ? null : match.slice(1).map(Number);
}
function compare(a, b) {
    for (let i = 0; i < 3; i++) {
        const difference = (a[i] ?? 0) - (b[i] ?? 0);
        if (difference !== 0)
            return difference;
    }
    return 0;
}
//# sourceMappingURL=vulnerabilities.js.map