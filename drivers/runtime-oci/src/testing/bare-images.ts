/** A store of directories instead of images, for tests that need a root file system that no image may hold. */
import { asId, FaasError, type ImageDigest, type ResolvedImage } from '@faas-platform/core'
import type { RootfsStore } from '../driver.js'

const refuse = async (): Promise<never> => {
  throw new FaasError('image/not-found', { message: 'There are only directories here.' })
}

export function bareImages(layerDirs: readonly string[]): RootfsStore {
  return {
    leaseRootfs: async () => ({ layerDirs, release() {} }),
    resolve: refuse,
    list: async () => [],
    remove: refuse,
    importArchive: refuse,
    buildFromRootfs: refuse,
  }
}

export const BARE_IMAGE: ResolvedImage = {
  digest: asId<ImageDigest>(`sha256:${'b'.repeat(64)}`),
  reference: 'bare',
  config: { env: {}, entrypoint: [], cmd: [], workingDir: '/', user: '', labels: {} },
  sizeBytes: 0,
  standIn: false,
}
