export class ExecWithOom {
    #exec;
    #exit;
    constructor(exec, oomStruck, explain) {
        this.#exec = exec;
        this.#exit = exec.wait().then(({ exitCode, signal, oomKilled, usage }) => ({ exitCode, signal, usage, oomKilled: oomKilled || oomStruck() }), async (error) => {
            throw await explain(error);
        });
        // `wait` hands the rejection to whoever asks; nobody has to.
        this.#exit.catch(() => { });
    }
    get pid() {
        return this.#exec.pid;
    }
    wait() {
        return this.#exit;
    }
    writeStdin(bytes) {
        return this.#exec.writeStdin(bytes);
    }
    closeStdin() {
        return this.#exec.closeStdin();
    }
    kill(signal) {
        return this.#exec.kill(signal);
    }
    resize(cols, rows) {
        return this.#exec.resize(cols, rows);
    }
}
//# sourceMappingURL=exec-handle.js.map