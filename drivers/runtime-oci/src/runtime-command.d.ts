/** How the three runtimes differ on the command line and in what they need. */
import type { IsolationClass, RuntimeName } from '@faas-platform/core';
export type OciRuntimeName = Extract<RuntimeName, 'runc' | 'crun' | 'gvisor'>;
export interface RuntimeKind {
    readonly name: OciRuntimeName;
    readonly isolation: IsolationClass;
    /** `socket`: the agent listens inside; `pipes`: it speaks on its standard streams. */
    readonly agent: 'socket' | 'pipes';
    /** Who makes the cgroups of a sandbox: the runtime inside of them, or we around it. */
    readonly cgroups: 'runtime' | 'driver';
    /** Does the runtime take a user namespace and the seccomp profile from the configuration? */
    readonly kernelShared: boolean;
    run(options: RunOptions): string[];
}
export interface RunOptions {
    readonly path: string;
    readonly state: string;
    readonly log: string;
    readonly bundle: string;
    readonly pidFile: string;
    readonly id: string;
    readonly network: 'none' | 'egress';
}
export declare const RUNTIME_KINDS: Readonly<Record<OciRuntimeName, RuntimeKind>>;
//# sourceMappingURL=runtime-command.d.ts.map