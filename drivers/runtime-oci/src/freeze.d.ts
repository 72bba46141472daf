import type { CgroupHost, HostKit } from '@faas-platform/host';
/** Returns when the kernel says that it holds. A freeze that does not succeed is taken back. */
export declare function freeze(hostkit: HostKit, cgroups: CgroupHost, group: string, frozen: boolean): Promise<void>;
//# sourceMappingURL=freeze.d.ts.map