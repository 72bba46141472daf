/** The agent's handle of a command, with what only the host can know: whether the OOM killer struck. */
import type { AgentExec } from '@faas-platform/agent-client';
import type { ExecExit, ExecHandle } from '@faas-platform/core';
export declare class ExecWithOom implements ExecHandle {
    #private;
    constructor(exec: AgentExec, oomStruck: () => boolean, explain: (error: unknown) => Promise<unknown>);
    get pid(): number;
    wait(): Promise<ExecExit>;
    writeStdin(bytes: Uint8Array): Promise<void>;
    closeStdin(): Promise<void>;
    kill(signal: string): Promise<void>;
    resize(cols: number, rows: number): Promise<void>;
}
//# sourceMappingURL=exec-handle.d.ts.map