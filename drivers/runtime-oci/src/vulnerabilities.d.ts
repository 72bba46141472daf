/**
 * Known escapes by runtime, as of 2026-11-21. Update the date with the table.
 * A distribution's package may carry a fix below the upstream version: `distribution` names those.
 */
import type { Vulnerability } from '@faas-platform/core';
import type { OciRuntimeName } from './runtime-command.js';
export declare const VULNERABILITIES_AS_OF = "2026-11-21";
interface KnownEscape {
    readonly id: string;
    readonly runtime: OciRuntimeName;
    /** First fixed version of each maintained branch, oldest branch first; newer branches are fixed from their start. */
    readonly fixed: readonly string[];
    /** Distribution packages with the fix: any of these, or a later revision of the same upstream version. */
    readonly distribution: readonly string[];
    readonly summary: string;
}
export declare const KNOWN_ESCAPES: readonly KnownEscape[];
/**
 * What this version is open to.
 * @param version As the runtime prints it, `1.3.6+ds1`.
 * @param revision The distribution's package version when the runtime prints it, `1.1.5+ds1-1+deb12u1`.
 */
export declare function vulnerabilitiesOf(runtime: OciRuntimeName, version: string, revision?: string): readonly Vulnerability[];
export {};
//# sourceMappingURL=vulnerabilities.d.ts.map