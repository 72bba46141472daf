import type { LogSink, RuntimeDriver } from '@faas-platform/core';
import { EgressNetworks, HostKit } from '@faas-platform/host';
import { OciImageStore } from '@faas-platform/image-store-oci';
import { type OciDriver, type OciDriverOptions } from '../driver.js';
import type { OciRuntimeName } from '../runtime-command.js';
export declare const hostkitPath: string;
export declare const agentPath: string;
export declare const testLog: LogSink;
export declare function toolPath(name: OciRuntimeName): string;
export interface TestDriver {
    readonly driver: OciDriver;
    readonly hostkit: HostKit;
    readonly images: OciImageStore;
    readonly egress: EgressNetworks;
}
/** A driver with a helper of its own; dispose of the driver first, then of the helper. */
export declare function makeParts(name: OciRuntimeName, dataDir: string, changes?: Partial<OciDriverOptions>): TestDriver;
export declare function makeOwned(name: OciRuntimeName, dataDir: string): RuntimeDriver;
//# sourceMappingURL=make-driver.d.ts.map