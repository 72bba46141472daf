/** The parts of the OCI runtime specification's `config.json` that this driver writes. */
export interface LinuxSyscall {
    readonly names: readonly string[];
    readonly action: string;
    readonly errnoRet?: number;
    readonly args?: readonly {
        readonly index: number;
        readonly value: number;
        readonly valueTwo?: number;
        readonly op: string;
    }[];
}
export interface LinuxSeccomp {
    readonly defaultAction: string;
    readonly defaultErrnoRet?: number;
    readonly architectures?: readonly string[];
    readonly syscalls: readonly LinuxSyscall[];
}
export interface Mount {
    readonly destination: string;
    readonly type: string;
    readonly source: string;
    readonly options?: readonly string[];
}
export interface IdMapping {
    readonly containerID: number;
    readonly hostID: number;
    readonly size: number;
}
export interface RuntimeConfig {
    readonly ociVersion: string;
    readonly process: {
        readonly terminal: boolean;
        readonly user: {
            readonly uid: number;
            readonly gid: number;
        };
        readonly args: readonly string[];
        readonly env: readonly string[];
        readonly cwd: string;
        readonly capabilities: Readonly<Record<'bounding' | 'effective' | 'permitted', readonly string[]>>;
        readonly rlimits: readonly {
            readonly type: string;
            readonly hard: number;
            readonly soft: number;
        }[];
        readonly noNewPrivileges: boolean;
        readonly oomScoreAdj?: number;
    };
    readonly root: {
        readonly path: string;
        readonly readonly: boolean;
    };
    readonly hostname: string;
    readonly mounts: readonly Mount[];
    readonly annotations?: Readonly<Record<string, string>>;
    readonly linux: {
        readonly namespaces: readonly {
            readonly type: string;
            readonly path?: string;
        }[];
        readonly uidMappings?: readonly IdMapping[];
        readonly gidMappings?: readonly IdMapping[];
        readonly cgroupsPath?: string;
        readonly resources?: {
            readonly devices: readonly {
                readonly allow: boolean;
                readonly access: string;
            }[];
            readonly memory: {
                readonly limit: number;
                readonly swap?: number;
            };
            readonly cpu: {
                readonly quota: number;
                readonly period: number;
            };
            readonly pids: {
                readonly limit: number;
            };
        };
        readonly seccomp?: LinuxSeccomp;
        readonly maskedPaths: readonly string[];
        readonly readonlyPaths: readonly string[];
    };
}
//# sourceMappingURL=runtime-spec.d.ts.map