/** Every bound of the store, with its default. */
import { GIB, MIB } from '@faas-platform/core'

export interface StoreLimits {
  /** One manifest, index or config document. */
  readonly manifestBytesMax: number
  /** All layers of one image, both as transferred and as unpacked. */
  readonly imageBytesMax: number
  /** One layer: its files, and (with room for headers) its tar stream. */
  readonly layerBytesMax: number
  readonly layerEntriesMax: number
  /** All files of an archive to import. */
  readonly archiveBytesMax: number
  readonly archiveEntriesMax: number
  /** Layers of one image taken in at the same time. */
  readonly parallelLayers: number
}

export const DEFAULT_LIMITS: StoreLimits = {
  manifestBytesMax: 4 * MIB,
  imageBytesMax: 32 * GIB,
  layerBytesMax: 16 * GIB,
  layerEntriesMax: 2_000_000,
  archiveBytesMax: 32 * GIB,
  archiveEntriesMax: 100_000,
  parallelLayers: 3,
}
