/** A process for tests to kill: pulls what it is told, again and again, and removes it in between. */
import { OciImageStore } from '../image-store.js'

const [dir = '', hostkitPath = '', ...references] = process.argv.slice(2)
const log = { debug() {}, info() {}, warn() {}, error() {} }
const signal = new AbortController().signal
const store = new OciImageStore({ dir, hostkitPath, log, platform: { os: 'linux', architecture: 'amd64' } })
for (;;) {
  for (const reference of references) {
    await store.resolve(reference, { pull: 'always', signal })
    process.stdout.write('+')
  }
  for (const reference of references) await store.remove(reference, signal)
  process.stdout.write('-')
}
