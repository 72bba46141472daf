import { AgentClient, type ConnectOptions } from '@faas-platform/agent-client';
/** Connects to the socket that the agent of the process `pid` listens on. */
export declare function connectAgent(pid: number, options: ConnectOptions): Promise<AgentClient>;
/** Speaks to an agent over the two pipes that the helper `hostkitPid` holds for it. */
export declare function connectPipes(hostkitPid: number, pipes: {
    readonly toAgent: number;
    readonly fromAgent: number;
}, options: ConnectOptions): Promise<AgentClient>;
//# sourceMappingURL=connect.d.ts.map