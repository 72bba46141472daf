export { FsLogStore } from './fs-log-store.js'
export { openLedger, type OpenLedgerOptions } from './open-ledger.js'
