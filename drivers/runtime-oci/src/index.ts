export { createOciDriver, OciDriver } from './driver.js'
export type { OciDriverOptions, RootfsStore } from './driver.js'
export type { OciRuntimeName } from './runtime-command.js'
