/** A data directory of a test's own, with a directory for temporary files beside it so that what stays there is seen. */
import { chmod, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

export interface DataDir extends AsyncDisposable {
  readonly path: string
  /** Given to gateways as TMPDIR. */
  readonly temp: string
  /** Environment for `startGateway`. */
  readonly env: Readonly<Record<string, string>>
}

export async function makeDataDir(name: string): Promise<DataDir> {
  const root = await mkdtemp(path.join(tmpdir(), `faas-${name}-`))
  // A sandbox's own user passes through on its way to its layers.
  await chmod(root, 0o711)
  const data = path.join(root, 'data')
  const temp = path.join(root, 'tmp')
  await mkdir(data, { mode: 0o711 })
  await mkdir(temp)
  return { path: data, temp, env: { TMPDIR: temp }, [Symbol.asyncDispose]: () => rm(root, { recursive: true, force: true }) }
}
