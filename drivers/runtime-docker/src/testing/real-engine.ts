/** The real engine for this package's tests: the one named by FAAS_TEST_DOCKER_SOCKET, the host's, or the project's own. */
import { fileURLToPath } from 'node:url'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'

const ROOT = fileURLToPath(new URL('../../../../', import.meta.url))

export const BASE_IMAGE_DIR = path.join(ROOT, '.tools/images/base')

export async function realEngineSocket(): Promise<string> {
  const named = process.env['FAAS_TEST_DOCKER_SOCKET']
  if (named !== undefined) return named
  const bootstrap = (await import(path.join(ROOT, 'scripts/bootstrap/dockerd.mjs'))) as { ensureDocker(): Promise<{ socket: string }> }
  return (await bootstrap.ensureDocker()).socket
}

/** A directory that is gone when the scope ends. */
export async function temporaryDir(): Promise<{ readonly path: string } & AsyncDisposable> {
  const dir = await mkdtemp(path.join(tmpdir(), 'faas-docker-test-'))
  return { path: dir, [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }) }
}
