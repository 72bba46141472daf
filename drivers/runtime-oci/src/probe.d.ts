import type { LogSink, ProbeFact, ProbeReport, Sandbox } from '@faas-platform/core';
import type { CgroupHost, HostKit } from '@faas-platform/host';
import type { OciRuntimeName } from './runtime-command.js';
export interface ProbeOptions {
    readonly name: OciRuntimeName;
    readonly runtimePath: string;
    readonly agentPath: string;
    readonly hostkitPath: string;
    readonly hostkit: HostKit;
    readonly cgroups: CgroupHost;
    readonly userNamespace: boolean;
    readonly log: LogSink;
    /** Makes a sandbox without an image. */
    readonly makeSandbox: (signal: AbortSignal) => Promise<Sandbox>;
    readonly network: () => Promise<readonly ProbeFact[]>;
    readonly signal: AbortSignal;
}
export declare function probeRuntime(options: ProbeOptions): Promise<ProbeReport>;
//# sourceMappingURL=probe.d.ts.map