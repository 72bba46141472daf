/** Stops and continues every process of a sandbox; memory stays where it is. */
import { setTimeout as delay } from 'node:timers/promises';
import { FaasError } from '@faas-platform/core';
const FREEZE_DEADLINE_MS = 5_000;
/** Returns when the kernel says that it holds. A freeze that does not succeed is taken back. */
export async function freeze(hostkit, cgroups, group, frozen) {
    const [file, value] = cgroups.freeze(group, frozen);
    await hostkit.call('control', file, value);
    const deadline = performance.now() + FREEZE_DEADLINE_MS;
    for (let pauseMs = 0.2; (await cgroups.isFrozen(group)) !== frozen; pauseMs = Math.min(pauseMs * 2, 20)) {
        if (performance.now() > deadline) {
            const [thawFile, thaw] = cgroups.freeze(group, false);
            await hostkit.call('control', thawFile, thaw);
            throw new FaasError('sandbox/lost', { message: `The sandbox could not be ${frozen ? 'paused' : 'resumed'} in time.` });
        }
        await delay(pauseMs);
    }
}
//# sourceMappingURL=freeze.js.map