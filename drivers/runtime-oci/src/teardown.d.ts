/** Frees everything a sandbox has on the host, in one round trip to the helper; says what it met. */
import type { LogSink, SandboxId } from '@faas-platform/core';
import { type CgroupHost, type HostKit, type Step } from '@faas-platform/host';
import type { SandboxPaths } from './layout.js';
export interface TeardownOptions {
    readonly id: SandboxId;
    readonly paths: SandboxPaths;
    readonly hostkit: HostKit;
    readonly cgroups: CgroupHost;
    /** Runs between the death of the last process and the removal of the directories. */
    readonly keep?: readonly Step[];
    readonly log: LogSink;
}
/** Ends every process and removes cgroups and directories. @throws HostKitError after several attempts. */
export declare function teardown(options: TeardownOptions): Promise<{
    readonly processes: number;
}>;
//# sourceMappingURL=teardown.d.ts.map