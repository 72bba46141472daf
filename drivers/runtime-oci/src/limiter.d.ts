/** At most `max` at a time; the rest wait in order, each under its own signal. */
export interface Slot {
    release(): void;
}
export declare class Limiter {
    #private;
    constructor(max: number);
    /** @throws the signal's reason. */
    take(signal: AbortSignal): Promise<Slot>;
}
//# sourceMappingURL=limiter.d.ts.map