/** What this machine is, and what that means, before anything is fetched. */
import { BootstrapError } from './process.mjs'

export const NODE_MINIMUM = '20.19.0'

/**
 * @param {{ platform?: string, nodeVersion?: string, uid?: number | undefined }} [host]
 * @returns {string[]} Warnings: what will be missing, what still works, how to get the rest.
 * @throws BootstrapError when nothing at all can work.
 */
export function checkHost({ platform = process.platform, nodeVersion = process.versions.node, uid = process.getuid?.() } = {}) {
  if (isOlder(nodeVersion, NODE_MINIMUM)) {
    throw new BootstrapError(`Node.js ${nodeVersion} is too old: ${NODE_MINIMUM} or newer is needed`, {
      hint: 'install a current Node.js (20 or 22 LTS)',
    })
  }
  if (platform !== 'linux') {
    throw new BootstrapError(`sandboxes need Linux, this is ${platform}`, {
      hint: 'run it in a Linux virtual machine; the client SDK and `faas --url` work from here',
    })
  }
  if (uid === 0) return []
  return [
    'not root: runc, crun and gVisor sandboxes, network policy and checkpoints need root. ' +
      'Still works: the docker runtime if your user may reach the Docker socket, the client, the build. ' +
      'For the rest: sudo npm start',
  ]
}

function isOlder(version, minimum) {
  const numbers = (text) => text.split('-')[0].split('.').map(Number)
  const [have, need] = [numbers(version), numbers(minimum)]
  for (let index = 0; index < 3; index += 1) {
    if (have[index] !== need[index]) return have[index] < need[index]
  }
  return false
}
