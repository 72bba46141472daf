/** Decides once, from the first sign of the end, why a sandbox is no more. */
import type { SandboxExit } from '@faas-platform/core';
export declare class ExitWatch {
    #private;
    readonly exited: Promise<SandboxExit>;
    constructor();
    get exit(): SandboxExit | null;
    /** The first call counts. */
    end(exit: SandboxExit): void;
}
//# sourceMappingURL=exit-watch.d.ts.map