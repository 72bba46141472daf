import { type RetainedState, type SandboxId } from '@faas-platform/core';
import type { HostKit, Step } from '@faas-platform/host';
export interface RetainOptions {
    readonly id: SandboxId;
    readonly upper: string;
    /** Where it goes. */
    readonly path: string;
    readonly hostkit: HostKit;
    readonly hostkitPath: string;
}
export interface Retaining {
    /** To be run when no process of the sandbox is left. */
    readonly steps: readonly Step[];
    state(): Promise<RetainedState>;
}
/** Moves the layer out of the sandbox's directory, without what the platform itself put there. */
export declare function retainUpper(options: RetainOptions): Retaining;
//# sourceMappingURL=retained.d.ts.map