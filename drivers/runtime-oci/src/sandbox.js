import { COMMAND_OOM_SCORE_ADJ, FaasError, isFaasError, } from '@faas-platform/core';
import { ExecWithOom } from './exec-handle.js';
import { ExitWatch } from './exit-watch.js';
import { freeze } from './freeze.js';
import { retainUpper } from './retained.js';
import { teardown } from './teardown.js';
/** Entries counted for `writableBytes` before the count is called incomplete. */
const USAGE_ENTRIES_MAX = 1_000_000;
export class OciSandbox {
    id;
    runtime;
    spec;
    timeBudget;
    exited;
    #parts;
    #watch = new ExitWatch();
    #stopListening;
    #end = null;
    #paused = false;
    constructor(parts) {
        this.#parts = parts;
        this.id = parts.spec.id;
        this.runtime = parts.runtime;
        this.spec = parts.spec;
        this.timeBudget = parts.timeBudget;
        this.exited = this.#watch.exited;
        this.#stopListening = parts.hostkit.onProcessExit(parts.mainPid, () => this.#lost('Its first process ended.'));
        void parts.agent.closed.then((error) => this.#lost(error?.message ?? 'The connection to its agent was closed.'));
    }
    async exec(spec, io, options) {
        this.#check();
        const oomBefore = this.#oomKills();
        try {
            const exec = await this.#parts.agent.exec(spec, io, { signal: options.signal, oomScoreAdj: COMMAND_OOM_SCORE_ADJ });
            return new ExecWithOom(exec, () => this.#oomKills() > oomBefore, (error) => this.#explain(error));
        }
        catch (error) {
            throw await this.#explain(error);
        }
    }
    async copyIn(path, tar, options) {
        this.#check();
        checkPath(path);
        try {
            await this.#parts.agent.copyIn(path, tar, options);
        }
        catch (error) {
            throw await this.#explain(error);
        }
    }
    async *copyOut(path, options) {
        this.#check();
        checkPath(path);
        try {
            yield* this.#parts.agent.copyOut(path, options);
        }
        catch (error) {
            throw await this.#explain(error);
        }
    }
    async pause() {
        if (this.#paused)
            return;
        this.#check();
        await freeze(this.#parts.hostkit, this.#parts.cgroups, this.#parts.paths.cgroup, true);
        this.#paused = true;
    }
    async resume() {
        if (this.#watch.exit !== null)
            throw this.#gone(this.#watch.exit);
        await freeze(this.#parts.hostkit, this.#parts.cgroups, this.#parts.paths.cgroup, false);
        this.#paused = false;
    }
    async stats() {
        if (this.#watch.exit !== null)
            throw this.#gone(this.#watch.exit);
        const { cgroups, hostkit, paths } = this.#parts;
        const [usage, files] = await Promise.all([
            cgroups.usage(paths.cgroup),
            hostkit.call('usage', paths.upper, USAGE_ENTRIES_MAX, Number.MAX_SAFE_INTEGER),
        ]);
        const writable = JSON.parse(files);
        return { ...usage, writableBytes: writable.bytes };
    }
    async updateLimits(limits) {
        this.#check();
        const { cgroups, hostkit, paths } = this.#parts;
        await hostkit.run(cgroups.limits(paths.cgroup, limits).map(([file, value]) => ['control', file, value]));
    }
    async capability(action) {
        if (this.#watch.exit !== null)
            return { can: false, why: this.#watch.exit.message };
        switch (action) {
            case 'checkpoint':
                return { can: false, why: 'This driver does not take checkpoints.' };
            case 'expose':
                return { can: false, why: 'This driver does not expose ports.' };
            default:
                return { can: true };
        }
    }
    async retain() {
        if (this.#end !== null)
            throw new FaasError('sandbox/destroyed', { message: 'The sandbox was destroyed before its files could be kept.' });
        const { hostkit, hostkitPath, retainedPath, paths } = this.#parts;
        const retained = retainUpper({ id: this.id, upper: paths.upper, path: retainedPath, hostkit, hostkitPath });
        this.#end = this.#destroy(retained.steps);
        await this.#end;
        return retained.state();
    }
    async [Symbol.asyncDispose]() {
        this.#end ??= this.#destroy([]);
        await this.#end;
    }
    async #destroy(keep) {
        const { agent, hostkit, cgroups, paths, log } = this.#parts;
        this.#watch.end({ reason: 'destroyed', message: 'The sandbox was destroyed.' });
        this.#stopListening();
        try {
            await agent.close();
            await teardown({ id: this.id, hostkit, cgroups, paths, log, ...(keep === undefined ? {} : { keep }) });
        }
        finally {
            await this.#parts.release();
        }
    }
    #oomKills() {
        return this.#parts.commandsVisible ? this.#parts.cgroups.oomKills(this.#parts.paths.cgroup) : 0;
    }
    #lost(how) {
        if (this.#watch.exit !== null)
            return;
        const oom = this.#parts.cgroups.oomKills(this.#parts.paths.cgroup) > 0;
        this.#watch.end(oom
            ? { reason: 'oom', message: `The sandbox ran out of its ${this.spec.limits.memoryBytes} bytes of memory.` }
            : { reason: 'lost', message: `The sandbox ended by itself. ${how}` });
    }
    #check() {
        const exit = this.#watch.exit;
        if (exit !== null)
            throw this.#gone(exit);
        if (this.#paused)
            throw new FaasError('instance/wrong-state', { message: 'The sandbox is paused.', hint: 'Resume it first.' });
    }
    #gone(exit) {
        if (exit.reason === 'destroyed')
            return new FaasError('sandbox/destroyed', { message: exit.message });
        return new FaasError(exit.reason === 'oom' ? 'sandbox/oom' : 'sandbox/lost', { message: exit.message });
    }
    /** A broken connection is a consequence; the sandbox's own end says more. */
    async #explain(error) {
        if (!isFaasError(error, 'agent/disconnected'))
            return error;
        const exit = await this.exited;
        const gone = this.#gone(exit);
        return new FaasError(gone.code, { message: gone.message, cause: error });
    }
}
function checkPath(path) {
    if (!path.startsWith('/'))
        throw new FaasError('sandbox/path-invalid', { message: 'A path in a sandbox must be absolute.' });
}
//# sourceMappingURL=sandbox.js.map