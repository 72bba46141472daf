const runc = (name) => ({
    name,
    isolation: 'process',
    agent: 'socket',
    cgroups: 'runtime',
    kernelShared: true,
    run: ({ path, state, log, bundle, pidFile, id }) => [path, '--root', state, '--log', log, '--log-format', 'json', 'run', '--detach', '--pid-file', pidFile, '--bundle', bundle, id],
});
/**
 * The same flags on every command of one container.
 * `--overlay2=none`: files go to our own overlay, so that the end state outlives the sandbox.
 */
const runscFlags = ({ state, log, network }) => [
    '--root', state, '--log', log, '--log-format', 'json', '--platform=systrap', network === 'none' ? '--network=none' : '--network=sandbox', '--ignore-cgroups',
    '--overlay2=none', '--host-uds=none', '--file-access=exclusive',
];
export const RUNTIME_KINDS = {
    runc: runc('runc'),
    crun: runc('crun'),
    gvisor: {
        name: 'gvisor',
        isolation: 'kernel',
        agent: 'pipes',
        cgroups: 'driver',
        kernelShared: false,
        run: (options) => [options.path, ...runscFlags(options), 'run', '--detach', '--pid-file', options.pidFile, '--bundle', options.bundle, options.id],
    },
};
//# sourceMappingURL=runtime-command.js.map