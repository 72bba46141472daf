import { type RuntimeName, type SandboxId } from '@faas-platform/core';
export interface OwnerPaths {
    readonly runtime: RuntimeName;
    /** `<dataDir>/sandboxes`; shared with other drivers, so names there begin with the runtime's. */
    readonly sandboxesDir: string;
    readonly retainedDir: string;
    /** Parent of the groups of all drivers of this data directory. */
    readonly rootCgroup: string;
    /** Parent group of all sandboxes of this driver, as `cgroupsPath` names it. */
    readonly cgroup: string;
    /** Group of the runtime's own short-lived processes. */
    readonly launchCgroup: string;
}
export interface SandboxPaths {
    readonly dir: string;
    readonly bundle: string;
    readonly config: string;
    readonly rootfs: string;
    /** Holds `upper` and `work`. */
    readonly writable: string;
    readonly upper: string;
    readonly work: string;
    /** The sandbox's own name and resolver, as a layer above the image. */
    readonly identity: string;
    readonly state: string;
    readonly pidFile: string;
    readonly log: string;
    readonly cgroup: string;
}
export declare function ownerPaths(dataDir: string, ownerId: string, runtime: RuntimeName): OwnerPaths;
export declare function sandboxPaths(owner: OwnerPaths, id: SandboxId): SandboxPaths;
/** The name of a sandbox's directory below `sandboxes` and `retained`. */
export declare function directoryName(owner: OwnerPaths, id: SandboxId): string;
/** The sandbox that a directory of this name belongs to; null when it is another driver's. */
export declare function sandboxOfDirectory(owner: OwnerPaths, name: string): SandboxId | null;
/** Ids become file and cgroup names; whatever they are elsewhere, here they must be plain. */
export declare function isPlainId(id: string): boolean;
//# sourceMappingURL=layout.d.ts.map