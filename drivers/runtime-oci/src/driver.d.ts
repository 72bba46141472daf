import { type Clock, type ImageDigest, type ImageStore, type LogSink, type ProbeReport, type ReclaimReport, type ResolvedImage, type RuntimeDriver, type RuntimeFeatures, type Sandbox, type SandboxId, type SandboxSpec } from '@faas-platform/core';
import { type EgressNetworks, type HostKit } from '@faas-platform/host';
import { type OciRuntimeName } from './runtime-command.js';
/** What this driver needs of the image store besides the port. */
export interface RootfsStore extends ImageStore {
    /** The unpacked layers of an image, top-most first; they stay until released. */
    leaseRootfs(digest: ImageDigest): Promise<{
        readonly layerDirs: readonly string[];
        release(): void | Promise<void>;
    }>;
}
export interface OciDriverOptions {
    readonly name: OciRuntimeName;
    /** The runtime's binary. */
    readonly runtimePath: string;
    readonly dataDir: string;
    readonly images: RootfsStore;
    readonly hostkit: HostKit;
    readonly hostkitPath: string;
    /** The static `faas-agent` binary. */
    readonly agentPath: string;
    readonly log: LogSink;
    /** Outbound networks, shared by the drivers of a data directory; absent: sandboxes have loopback only. */
    readonly egress?: EgressNetworks;
    readonly clock?: Clock;
    /** For the runtime to start a sandbox and its agent to answer, ms. Default 20_000. */
    readonly startTimeoutMs?: number;
    /**
     * First host id of the range that sandboxes' ids are mapped to; null: no user namespace.
     * Only where the kernel is shared (runc, crun). Default 0x70000000.
     */
    readonly idBase?: number | null;
}
export declare function createOciDriver(options: OciDriverOptions): OciDriver;
export declare class OciDriver implements RuntimeDriver {
    #private;
    readonly name: OciRuntimeName;
    readonly features: RuntimeFeatures;
    readonly images: ImageStore;
    constructor(options: OciDriverOptions);
    probe(signal: AbortSignal): Promise<ProbeReport>;
    prepareImage(image: ResolvedImage, signal: AbortSignal): Promise<void>;
    create(spec: SandboxSpec, options: {
        readonly signal: AbortSignal;
    }): Promise<Sandbox>;
    list(signal: AbortSignal): Promise<readonly SandboxId[]>;
    reclaim(keep: ReadonlySet<SandboxId>, signal: AbortSignal): Promise<ReclaimReport>;
    [Symbol.asyncDispose](): Promise<void>;
}
//# sourceMappingURL=driver.d.ts.map