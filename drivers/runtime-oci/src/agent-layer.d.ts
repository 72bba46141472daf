import type { HostKit } from '@faas-platform/host';
/** Makes the layer for this agent binary once; returns its directory. */
export declare function ensureAgentLayer(dir: string, agentPath: string, hostkit: HostKit): Promise<string>;
//# sourceMappingURL=agent-layer.d.ts.map