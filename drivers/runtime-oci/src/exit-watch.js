export class ExitWatch {
    exited;
    #exit = null;
    #settle = () => { };
    constructor() {
        this.exited = new Promise((resolve) => (this.#settle = resolve));
    }
    get exit() {
        return this.#exit;
    }
    /** The first call counts. */
    end(exit) {
        if (this.#exit !== null)
            return;
        this.#exit = exit;
        this.#settle(exit);
    }
}
//# sourceMappingURL=exit-watch.js.map