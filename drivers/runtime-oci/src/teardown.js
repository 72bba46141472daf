import { HostKitError } from '@faas-platform/host';
/** Each of: killing, removing cgroups. Far above what a loaded host takes. */
const STEP_DEADLINE_MS = 10_000;
const ATTEMPTS_MAX = 3;
/** Ends every process and removes cgroups and directories. @throws HostKitError after several attempts. */
export async function teardown(options) {
    const { paths, cgroups } = options;
    const steps = [
        ['cgroup-kill', STEP_DEADLINE_MS, cgroups.processDirectory(paths.cgroup)],
        ['cgroup-remove', STEP_DEADLINE_MS, ...cgroups.directories(paths.cgroup)],
        ...(options.keep ?? []),
        ['rmtree', paths.dir],
    ];
    for (let attempt = 1;; attempt++) {
        try {
            const results = await options.hostkit.run(steps);
            return { processes: Number(results[0]?.text ?? 0) };
        }
        catch (error) {
            if (!(error instanceof HostKitError) || attempt >= ATTEMPTS_MAX)
                throw error;
            options.log.warn({ sandbox: options.id, attempt, error: error.message }, 'a sandbox was not freed at once');
        }
    }
}
//# sourceMappingURL=teardown.js.map