/** A layer compressed with zstd. Made with `zstd -19` of the tar below; the diff id proves that they belong together. */
import { image, type TestImage } from './fixtures.js'

const COMPRESSED = Buffer.from('KLUv/WQAB+UBAKJCCA/QZwxVhIZlIToJ2dVAixSWc8nX2DnkwFCCvFv/Vo1/LQkgULc7+P1KIhVgCKB0gMkbLhE4nJ8OFla/ekU=', 'base64')

export function zstdImage(): TestImage {
  return image([[{ name: 'a', data: 'zstd' }]], { compress: () => COMPRESSED, layerType: 'application/vnd.oci.image.layer.v1.tar+zstd' })
}
