/**
 * A live sandbox of runc, crun or gVisor.
 *
 * I1. Numbers and the reason of its end come from the host's cgroup, never from the guest.
 * I2. Disposal runs once whoever asks, under its own deadline, and leaves nothing.
 */
import type { AgentClient } from '@faas-platform/agent-client';
import { type Capability, type ExecHandle, type ExecIo, type ExecSpec, type LogSink, type RetainedState, type RuntimeName, type Sandbox, type SandboxAction, type SandboxExit, type SandboxId, type SandboxLimits, type SandboxSpec, type SandboxStats, type TimeBudget } from '@faas-platform/core';
import type { CgroupHost, HostKit } from '@faas-platform/host';
import type { SandboxPaths } from './layout.js';
export interface SandboxParts {
    readonly spec: SandboxSpec;
    readonly runtime: RuntimeName;
    readonly paths: SandboxPaths;
    /** Where the writable layer goes when it is retained. */
    readonly retainedPath: string;
    /** Its first process, as the host numbers it. */
    readonly mainPid: number;
    readonly agent: AgentClient;
    readonly hostkit: HostKit;
    readonly hostkitPath: string;
    readonly cgroups: CgroupHost;
    readonly log: LogSink;
    readonly timeBudget: TimeBudget;
    /** Whether the kernel of the host counts the OOM kills of single commands. */
    readonly commandsVisible: boolean;
    /** Frees what is shared with other sandboxes (image lease, network). */
    readonly release: () => Promise<void>;
}
export declare class OciSandbox implements Sandbox {
    #private;
    readonly id: SandboxId;
    readonly runtime: RuntimeName;
    readonly spec: SandboxSpec;
    readonly timeBudget: TimeBudget;
    readonly exited: Promise<SandboxExit>;
    constructor(parts: SandboxParts);
    exec(spec: ExecSpec, io: ExecIo, options: {
        readonly signal: AbortSignal;
    }): Promise<ExecHandle>;
    copyIn(path: string, tar: AsyncIterable<Uint8Array>, options: {
        readonly signal: AbortSignal;
    }): Promise<void>;
    copyOut(path: string, options: {
        readonly signal: AbortSignal;
    }): AsyncIterable<Uint8Array>;
    pause(): Promise<void>;
    resume(): Promise<void>;
    stats(): Promise<SandboxStats>;
    updateLimits(limits: SandboxLimits): Promise<void>;
    capability(action: SandboxAction): Promise<Capability>;
    retain(): Promise<RetainedState>;
    [Symbol.asyncDispose](): Promise<void>;
}
//# sourceMappingURL=sandbox.d.ts.map