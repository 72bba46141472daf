/** The two questions the bootstrap asks a Docker Engine, over its unix socket. */
import { request } from 'node:http'

/**
 * @param {string} socketPath @param {string} path
 * @param {{ method?: string, timeoutMs?: number }} [options]
 * @returns {Promise<{ status: number, body: string }>}
 */
export function dockerRequest(socketPath, path, { method = 'GET', timeoutMs = 3_000 } = {}) {
  return new Promise((resolvePromise, reject) => {
    const outgoing = request({ socketPath, path, method, timeout: timeoutMs }, (response) => {
      const chunks = []
      response.on('data', (chunk) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        resolvePromise({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') })
      })
    })
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer from ${socketPath} within ${timeoutMs} ms`)))
    outgoing.on('error', reject)
    outgoing.end()
  })
}

/** @returns {Promise<string | undefined>} The engine's version, or undefined when nothing answers there. */
export async function engineVersion(socketPath) {
  try {
    const { status, body } = await dockerRequest(socketPath, '/version')
    return status === 200 ? JSON.parse(body).Version : undefined
  } catch {
    // No socket, nobody listening, or no permission: all mean that there is no engine for us here.
    return undefined
  }
}
