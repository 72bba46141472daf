/** Drivers over the tools that set-up provides; the crash tests load this module in a process of their own. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { dataDirId, EgressNetworks, HostKit } from '@faas-platform/host';
import { OciImageStore } from '@faas-platform/image-store-oci';
import { createOciDriver } from '../driver.js';
const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));
const BINARIES = { runc: 'runc', crun: 'crun', gvisor: 'runsc' };
export const hostkitPath = join(ROOT, 'agent/target/release/faas-hostkit');
export const agentPath = join(ROOT, 'agent/target/release/faas-agent');
export const testLog = {
    debug() { },
    info() { },
    warn: (fields, message) => console.error('warn', message, fields),
    error: (fields, message) => console.error('error', message, fields),
};
export function toolPath(name) {
    return join(ROOT, '.tools/bin', BINARIES[name]);
}
/** A driver with a helper of its own; dispose of the driver first, then of the helper. */
export function makeParts(name, dataDir, changes = {}) {
    mkdirSync(dataDir, { recursive: true, mode: 0o711 });
    const hostkit = new HostKit({ path: hostkitPath, log: testLog, lockPath: join(dataDir, 'hostkit.lock') });
    const images = new OciImageStore({ dir: join(dataDir, 'images'), hostkitPath, log: testLog });
    const egress = new EgressNetworks({ ownerId: dataDirId(dataDir), hostkit, nftPath: join(ROOT, '.tools/bin/nft'), log: testLog });
    const driver = createOciDriver({
        egress, name, runtimePath: toolPath(name), dataDir, images, hostkit, hostkitPath, agentPath, log: testLog, ...changes,
    });
    return { driver, hostkit, images, egress };
}
export function makeOwned(name, dataDir) {
    const { driver, hostkit, egress } = makeParts(name, dataDir);
    const dispose = driver[Symbol.asyncDispose].bind(driver);
    driver[Symbol.asyncDispose] = async () => {
        await dispose();
        await egress[Symbol.asyncDispose]();
        await hostkit[Symbol.asyncDispose]();
    };
    return driver;
}
//# sourceMappingURL=make-driver.js.map