/** Makes the data directory usable, or says why it is not. */
import { constants } from 'node:fs'
import { access, chmod, mkdir, realpath, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { FaasError } from '@faas-platform/core'

/**
 * @returns The directory, made if need be, by its true path: runtimes refuse relative ones and links on the way to a root file system
 * @throws FaasError `config/invalid` when it can not be made or written to
 */
export async function prepareDataDir(path: string): Promise<string> {
  try {
    // Others may pass through to what a sandbox's own user must reach; what is private is closed by itself.
    await mkdir(join(resolve(path), 'run'), { recursive: true, mode: 0o711 })
    const dataDir = await realpath(path)
    await letPass(dataDir)
    await access(join(dataDir, 'run'), constants.W_OK)
    return dataDir
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? ` (${String(cause.code)})` : ''
    throw new FaasError('config/invalid', { message: `The data directory ${path} can not be used${code}.`, hint: 'Choose one that this process may write to: FAAS_DATA_DIR or --data-dir.', cause })
  }
}

/** A directory that was made closed would keep every sandbox with a user of its own from its root file system. */
async function letPass(dataDir: string): Promise<void> {
  const { mode, uid } = await stat(dataDir)
  if ((mode & 0o011) !== 0o011 && uid === process.getuid?.()) await chmod(dataDir, (mode & 0o777) | 0o011)
}
