import type { RuntimeDriver } from '@faas-platform/core';
export declare const makeDriver: (dataDir: string) => Promise<RuntimeDriver>;
//# sourceMappingURL=make-gvisor.d.ts.map