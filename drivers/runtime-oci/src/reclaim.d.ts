import { type LogSink, type ReclaimReport, type SandboxId } from '@faas-platform/core';
import type { CgroupHost, EgressNetworks, HostKit } from '@faas-platform/host';
import { type OwnerPaths } from './layout.js';
export interface ReclaimOptions {
    readonly owner: OwnerPaths;
    readonly cgroups: CgroupHost;
    readonly hostkit: HostKit;
    readonly log: LogSink;
    readonly keep: ReadonlySet<SandboxId>;
    /** Whether sandboxes of this process need the groups that all share. */
    readonly inUse: boolean;
    readonly egress?: EgressNetworks;
}
export declare function reclaimAll(options: ReclaimOptions): Promise<ReclaimReport>;
/** Groups without sandboxes: those of this driver, then the one above when no other driver uses it. */
export declare function removeSharedGroups(options: Pick<ReclaimOptions, 'owner' | 'cgroups' | 'hostkit'>): Promise<void>;
/** Sandboxes of this driver that have an entry in a directory. */
export declare function sandboxesIn(dir: string, owner: OwnerPaths): Promise<SandboxId[]>;
//# sourceMappingURL=reclaim.d.ts.map