/**
 * What goes into the images that are built offline from the machine's own
 * packages. They stand in for alpine, python:3.11-slim and node:20-slim where
 * no registry is in reach.
 */
import { lstatSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { BootstrapError, run } from './process.mjs'
import { entriesFromDirectory } from './tar.mjs'

const PATH_ENV = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
const PYTHON = '3.11'
const COMPILE_TIMEOUT_MS = 240_000

/** Documentation, translations and packaging leftovers have no use in a sandbox. */
const DROPPED = /^usr\/share\/(doc|man|info|locale|lintian|bug|pixmaps|applications|doc-base|menu|binfmts|gcc|gdb)(\/|$)/
/** Debian merged these into /usr; packages of older suites still ship them at the top. */
const MERGED = ['bin', 'sbin', 'lib', 'lib64']

/**
 * @typedef {{ ref: string, entries: import('./tar.mjs').TarEntry[], config: object, dispose(): void }} ImageContents
 *   `entries` may name files that live until `dispose`.
 */

/** @param {{ busybox: string, certificates?: string }} inputs @returns {Promise<ImageContents>} */
export async function baseContents({ busybox, certificates }) {
  return {
    ref: 'faas/base:latest',
    entries: [...skeleton(certificates), ...(await busyboxEntries(busybox))],
    config: { Env: [PATH_ENV], Cmd: ['/bin/sh'], WorkingDir: '/' },
    dispose() {},
  }
}

/**
 * Python from Debian packages, byte-compiled in advance: a sandbox starts with
 * a fresh root each time and would otherwise compile the library on every run.
 * @param {{ busybox: string, certificates?: string, prefix: import('./debian-prefix.mjs').DebianPrefix }} inputs
 * @returns {Promise<ImageContents>}
 */
export async function pythonContents({ busybox, certificates, prefix }) {
  const stage = mkdtempSync(join(tmpdir(), 'faas-image-python-'))
  const dispose = () => rmSync(stage, { recursive: true, force: true })
  try {
    const roots = [`python${PYTHON}`, `python${PYTHON}-minimal`, `libpython${PYTHON}-stdlib`, 'libc-bin', 'netbase', 'tzdata']
    const { packages, files } = await prefix.fetch(roots)
    for (const item of packages) await run('dpkg-deb', ['-x', files.get(item.name), stage])
    await byteCompile(stage)
    const links = ['usr/bin/python3', 'usr/bin/python', 'usr/local/bin/python3', 'usr/local/bin/python'].map((path) => ({
      path,
      type: 'symlink',
      target: `/usr/bin/python${PYTHON}`,
    }))
    return {
      ref: `faas/python:${PYTHON}`,
      entries: [...mergedUsr([...skeleton(certificates), ...(await busyboxEntries(busybox)), ...entriesFromDirectory(stage)]), ...links],
      config: { Env: [PATH_ENV, 'LANG=C.UTF-8'], Cmd: ['python3'], WorkingDir: '/' },
      dispose,
    }
  } catch (cause) {
    dispose()
    throw cause
  }
}

/**
 * The Node.js that runs this script, with exactly the libraries its loader names.
 * @param {{ busybox: string, certificates?: string }} inputs @returns {Promise<ImageContents>}
 */
export async function nodeContents({ busybox, certificates }) {
  const node = realpathSync(process.execPath)
  const { stdout } = await run('ldd', [node])
  const libraries = [...stdout.matchAll(/(?:=>\s+)?(\/\S+)\s+\(0x/g)].map((match) => match[1])
  if (libraries.length === 0) throw new BootstrapError(`ldd names no libraries for ${node}`)
  const entries = [
    ...skeleton(certificates),
    ...(await busyboxEntries(busybox)),
    ...libraries.map((file) => ({ path: file.slice(1), type: 'file', mode: 0o755, source: realpathSync(file) })),
    { path: 'usr/local/bin/node', type: 'file', mode: 0o755, source: node },
  ]
  return {
    ref: `faas/node:${process.versions.node.split('.')[0]}`,
    entries: mergedUsr(entries),
    config: { Env: [PATH_ENV], Cmd: ['node'], WorkingDir: '/' },
    dispose() {},
  }
}

/** All certificates of the ca-certificates package as one bundle, sorted by name. */
export function certificateBundle(prefixRoot) {
  const dir = join(prefixRoot, 'usr/share/ca-certificates/mozilla')
  return readdirSync(dir)
    .filter((name) => name.endsWith('.crt'))
    .sort()
    .map((name) => readFileSync(join(dir, name), 'utf8').trimEnd() + '\n')
    .join('')
}

function skeleton(certificates) {
  const file = (path, content, mode = 0o644) => ({ path, type: 'file', mode, content })
  const directory = (path, mode = 0o755) => ({ path, type: 'directory', mode })
  return [
    ...['dev', 'proc', 'sys', 'run', 'var/log', 'var/run', 'mnt', 'opt', 'srv', 'usr/local/bin'].map((path) => directory(path)),
    directory('tmp', 0o1777),
    directory('var/tmp', 0o1777),
    directory('root', 0o700),
    directory('home/user'),
    file('etc/passwd', 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n'),
    file('etc/group', 'root:x:0:\ntty:x:5:\nuser:x:1000:\nnogroup:x:65534:\n'),
    file('etc/shadow', 'root:*::0:::::\nuser:*::0:::::\nnobody:*::0:::::\n', 0o600),
    file('etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n'),
    file('etc/hosts', '127.0.0.1 localhost\n::1 localhost\n'),
    file('etc/resolv.conf', ''), // written by the runtime when the sandbox has a network
    file('etc/hostname', 'sandbox\n'),
    ...(certificates
      ? [
          file('etc/ssl/certs/ca-certificates.crt', certificates),
          { path: 'etc/ssl/cert.pem', type: 'symlink', target: 'certs/ca-certificates.crt' },
        ]
      : []),
  ]
}

async function busyboxEntries(busybox) {
  const { stdout } = await run(busybox, ['--list-full'])
  const applets = stdout.split('\n').filter((path) => path !== '' && path !== 'bin/busybox' && path !== 'usr/bin/busybox')
  if (!applets.some((path) => path.endsWith('bin/sh'))) throw new BootstrapError('this busybox has no shell')
  return [
    { path: 'bin/busybox', type: 'file', mode: 0o755, source: realpathSync(busybox) },
    ...applets.map((path) => ({ path, type: 'symlink', target: '/bin/busybox' })),
    // `#!/usr/bin/env` and `/bin/sh` are what scripts name, wherever this busybox lists them.
    { path: 'bin/sh', type: 'symlink', target: '/bin/busybox' },
    { path: 'usr/bin/env', type: 'symlink', target: '/bin/busybox' },
  ]
}

/** Moves /bin, /sbin, /lib and /lib64 below /usr and leaves symbolic links; later entries win. */
function mergedUsr(entries) {
  const moved = entries
    .filter((entry) => !DROPPED.test(entry.path) && !MERGED.includes(entry.path))
    .map((entry) => (MERGED.some((top) => entry.path.startsWith(`${top}/`)) ? { ...entry, path: `usr/${entry.path}` } : entry))
  return [...moved, ...MERGED.map((top) => ({ path: top, type: 'symlink', target: `usr/${top}` })), ...MERGED.map((top) => ({ path: `usr/${top}`, type: 'directory', mode: 0o755 }))]
}

/**
 * Hash-based .pyc files hold no time stamp, so they stay valid in a layer whose mtimes are all zero.
 * -B and -f: the compiler's own imports must not leave time-stamped ones behind.
 */
async function byteCompile(stage) {
  const libraries = ['usr/lib', 'lib'].flatMap((top) => {
    const dir = join(stage, top)
    return readdirSync(dir)
      .filter((name) => name.endsWith('-linux-gnu'))
      .map((name) => join(dir, name))
  })
  const loader = libraries
    .flatMap((dir) => readdirSync(dir).map((name) => join(dir, name)))
    .find((file) => /\/ld-linux[^/]*\.so\.\d$/.test(file) && lstatSync(file).isFile())
  if (!loader) throw new BootstrapError('the packages of the python image hold no dynamic loader')
  const home = join(stage, 'usr')
  const args = ['--library-path', libraries.join(':'), join(stage, `usr/bin/python${PYTHON}`), '-B', '-S', '-m', 'compileall', '-q', '-f', '-j', '2']
  const library = join(home, `lib/python${PYTHON}`)
  await run(loader, [...args, '--invalidation-mode', 'unchecked-hash', '-s', stage, '-p', '/', library], {
    env: { PATH: process.env.PATH ?? '', PYTHONHOME: home, PYTHONHASHSEED: '0' },
    timeoutMs: COMPILE_TIMEOUT_MS,
  })
}
