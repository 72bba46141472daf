/** Every path and name that belongs to one sandbox, in one place: creation, disposal and reclaim must agree. */
import { join } from 'node:path';
import { asId } from '@faas-platform/core';
export function ownerPaths(dataDir, ownerId, runtime) {
    const rootCgroup = `/faas-${ownerId}`;
    const cgroup = `${rootCgroup}/${runtime}`;
    return {
        runtime,
        sandboxesDir: join(dataDir, 'sandboxes'),
        retainedDir: join(dataDir, 'retained'),
        rootCgroup,
        cgroup,
        launchCgroup: `${cgroup}/launch`,
    };
}
export function sandboxPaths(owner, id) {
    const dir = join(owner.sandboxesDir, directoryName(owner, id));
    const bundle = join(dir, 'bundle');
    const writable = join(dir, 'fs');
    return {
        dir,
        bundle,
        config: join(bundle, 'config.json'),
        rootfs: join(bundle, 'rootfs'),
        writable,
        upper: join(writable, 'upper'),
        work: join(writable, 'work'),
        identity: join(dir, 'identity'),
        state: join(dir, 'state'),
        pidFile: join(dir, 'pid'),
        log: join(dir, 'runtime.log'),
        cgroup: `${owner.cgroup}/${id}`,
    };
}
/** The name of a sandbox's directory below `sandboxes` and `retained`. */
export function directoryName(owner, id) {
    return `${owner.runtime}-${id}`;
}
/** The sandbox that a directory of this name belongs to; null when it is another driver's. */
export function sandboxOfDirectory(owner, name) {
    const prefix = `${owner.runtime}-`;
    return name.startsWith(prefix) ? asId(name.slice(prefix.length)) : null;
}
/** Ids become file and cgroup names; whatever they are elsewhere, here they must be plain. */
export function isPlainId(id) {
    return /^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(id) && id !== 'launch';
}
//# sourceMappingURL=layout.js.map