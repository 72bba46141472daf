/**
 * Everything that must be true before the gateway or the tests can run, in as
 * few seconds as the machine allows. `npm start` and `npm test` share it.
 */
import { buildAgent, buildTypeScript } from './build.mjs'
import { ensureImages } from './base-image.mjs'
import { ensureDocker } from './dockerd.mjs'
import { checkHost } from './host-check.mjs'
import { ensureNodeModules } from './node-modules.mjs'
import { pathWithTools, TOOLS_DIR } from './paths.mjs'
import { progress } from './progress.mjs'
import { ensureTools } from './tools.mjs'

/**
 * @typedef {object} Prepared
 * @property {NodeJS.ProcessEnv} env For the gateway or the tests: tools on PATH, their directory and Docker's socket named.
 * @property {import('./dockerd.mjs').Engine | undefined} docker
 * @property {string[]} problems What is missing, one sentence each; already shown.
 * @property {boolean} built Whether the TypeScript packages build.
 */

/**
 * @param {{ images: readonly string[], docker: boolean, required?: boolean, buildRequired?: boolean }} options
 *   `required` (default: CI=true): anything missing is an error.
 *   `buildRequired` (default true): a TypeScript error is one too; otherwise it is reported as `built: false`.
 * @returns {Promise<Prepared>}
 */
export async function prepare({ images, docker, required = process.env.CI === 'true', buildRequired = true }) {
  const problems = checkHost()
  for (const problem of problems) progress('host', problem)
  await ensureNodeModules()

  const tolerate = async (area, task) => {
    try {
      return await task()
    } catch (cause) {
      if (required) throw cause
      const problem = `${cause.message}${cause.hint ? ` (${cause.hint})` : ''}`
      progress(area, problem)
      problems.push(problem)
      return undefined
    }
  }

  // The builds use the processor, the tools mostly the network: two lanes fit two cores.
  let built = true
  const [engine] = await settleAll([
    (async () => {
      const { missing } = await ensureTools({ required })
      for (const { name, reason, lost, hint } of missing) {
        const problem = `${name} is missing (${reason}). Without it: ${lost}.${hint ? ` To get it: ${hint}.` : ''}`
        progress('tools', problem)
        problems.push(problem)
      }
      await tolerate('images', () => ensureImages(images))
      return docker ? tolerate('docker', () => ensureDocker()) : undefined
    })(),
    (async () => {
      await tolerate('agent', buildAgent)
      try {
        await buildTypeScript()
      } catch (cause) {
        if (buildRequired) throw cause
        built = false
        progress('typescript', cause.message)
      }
    })(),
  ])
  return { env: environment(engine), docker: engine, problems, built }
}

function environment(engine) {
  return {
    ...process.env,
    PATH: pathWithTools(),
    FAAS_TOOLS_DIR: TOOLS_DIR,
    ...(engine && !process.env.FAAS_DOCKER_SOCKET ? { FAAS_DOCKER_SOCKET: engine.socket } : {}),
  }
}

/** Like Promise.all, but a failing lane does not leave the other one running unobserved. */
async function settleAll(promises) {
  const results = await Promise.allSettled(promises)
  const failed = results.find((result) => result.status === 'rejected')
  if (failed) throw failed.reason
  return results.map((result) => result.value)
}
