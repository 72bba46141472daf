import { makeOwned } from './make-driver.js';
export const makeDriver = async (dataDir) => makeOwned('gvisor', dataDir);
//# sourceMappingURL=make-gvisor.js.map