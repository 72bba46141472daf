import { type SandboxSpec } from '@faas-platform/core';
import type { RuntimeConfig } from './runtime-spec.js';
export declare const AGENT_DIR = ".faas";
export declare const AGENT_SOCKET = "agent.sock";
export declare const READY_LINE = "faas-agent ready";
/** Ids that a sandbox's user namespace has. */
export declare const IDS_PER_SANDBOX = 65536;
export interface ConfigOptions {
    readonly cgroupsPath: string | null;
    readonly agentArgs: readonly string[];
    /** First host id of the sandbox's user namespace; null for none. */
    readonly idBase: number | null;
    /** Path of a prepared network namespace; null: the runtime makes an empty one. */
    readonly netnsPath: string | null;
    /** Path of the user namespace that owns the network namespace; null: the runtime makes one when ids are mapped. */
    readonly usernsPath: string | null;
    readonly seccomp: boolean;
    readonly rootPath: string;
}
export declare function runtimeConfig(spec: SandboxSpec, options: ConfigOptions): RuntimeConfig;
//# sourceMappingURL=config-json.d.ts.map