/**
 * Corrections to fetched programs that this kernel needs and Debian does not
 * carry yet. Each says when it applies, changes nothing else, and is recorded
 * in tools.json.
 */
import { readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { BootstrapError, run } from './process.mjs'

const PATCHES = {
  /**
   * gVisor refuses to take over a network namespace that it believes is the
   * host's own, and tells it by a sysctl that used to exist only there:
   * net.core.rmem_default. Newer kernels show it in every namespace, so
   * `--network=sandbox` always fails. The safety check itself is kept: it asks
   * for net.core.message_cost instead, which still exists only in the host's
   * namespace and has a name of the same length. Can go with a runsc that
   * knows these kernels.
   */
  'runsc-root-netns': {
    from: '/proc/sys/net/core/rmem_default',
    to: '/proc/sys/net/core/message_cost',
    occurrences: 2, // the check, and its error message
    async applies() {
      const shown = async (file) => (await run('unshare', ['--net', 'test', '-e', file], { check: false })).code === 0
      return (await shown(this.from)) && !(await shown(this.to))
    },
  },
}

/**
 * @param {string} file @param {keyof typeof PATCHES} name
 * @returns {Promise<string | undefined>} The patch's name when the file carries it, undefined when this kernel does not need it.
 */
export async function patchTool(file, name) {
  const patch = PATCHES[name]
  const from = Buffer.from(patch.from)
  const to = Buffer.from(patch.to)
  if (process.getuid() !== 0 || !(await patch.applies())) return undefined
  const content = readFileSync(file)
  const found = offsets(content, from)
  if (found.length === 0 && offsets(content, to).length === patch.occurrences) return name
  if (found.length !== patch.occurrences || from.length !== to.length) {
    throw new BootstrapError(`${file} is not the program that the patch ${name} was made for`)
  }
  for (const offset of found) to.copy(content, offset)
  const next = `${file}.patched`
  writeFileSync(next, content, { mode: statSync(file).mode })
  renameSync(next, file)
  return name
}

function offsets(content, needle) {
  const list = []
  for (let at = content.indexOf(needle); at !== -1; at = content.indexOf(needle, at + needle.length)) list.push(at)
  return list
}
