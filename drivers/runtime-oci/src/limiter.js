export class Limiter {
    #max;
    #waiting = new Set();
    #taken = 0;
    constructor(max) {
        this.#max = max;
    }
    /** @throws the signal's reason. */
    async take(signal) {
        if (this.#taken >= this.#max) {
            await new Promise((resolve, reject) => {
                const waiter = {
                    admit: () => {
                        signal.removeEventListener('abort', onAbort);
                        resolve();
                    },
                };
                const onAbort = () => {
                    this.#waiting.delete(waiter);
                    reject(signal.reason);
                };
                signal.addEventListener('abort', onAbort, { once: true });
                this.#waiting.add(waiter);
            });
        }
        else {
            signal.throwIfAborted();
            this.#taken++;
        }
        let released = false;
        return {
            release: () => {
                if (released)
                    return;
                released = true;
                this.#next();
            },
        };
    }
    /** Hands the place on, or frees it. */
    #next() {
        const [first] = this.#waiting;
        if (first === undefined) {
            this.#taken--;
            return;
        }
        this.#waiting.delete(first);
        first.admit();
    }
}
//# sourceMappingURL=limiter.js.map