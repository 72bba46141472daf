export { OciImageStore, type OciImageStoreOptions, type PruneReport, type RootfsLease, type StoreUsage } from './image-store.js'
export { DEFAULT_LIMITS, type StoreLimits } from './limits.js'
export { hostPlatform, type Platform } from './platform.js'
export { parseName, parseReference, type DigestReference, type NamedReference, type Reference } from './reference.js'
