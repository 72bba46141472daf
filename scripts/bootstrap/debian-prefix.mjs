/**
 * Packages of one Debian suite unpacked into a private prefix, with their own
 * C library, so that a tool of any suite runs on any host.
 *
 * A program is not started through the loader (`ld.so program`): runc and
 * friends re-execute /proc/self/exe, which would then be the loader. Instead
 * each program's interpreter and run path are set to the prefix with patchelf,
 * and it stays itself.
 *
 * Invariants
 *  I1  A .deb is unpacked only if its SHA-256 equals the one in the signed index.
 *  I2  A patched program finds every library inside the prefix; one that would take a host library is refused.
 */
import { createHash } from 'node:crypto'
import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { libraryClosure } from './debian-control.mjs'
import { readElf } from './elf.mjs'
import { openApt } from './private-apt.mjs'
import { BootstrapError, run } from './process.mjs'
import { progress } from './progress.mjs'

const MULTIARCH = { x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu' }
const LOADER = { x64: 'ld-linux-x86-64.so.2', arm64: 'ld-linux-aarch64.so.1' }

/** One per suite and process: the index is fetched once, and unpacking is serial. */
export class DebianPrefix {
  #apt
  #queue = Promise.resolve()

  /** @param {{ suite: string, toolsDir: string, mirror: import('./debian-sources.mjs').DebianMirror }} options */
  constructor({ suite, toolsDir, mirror }) {
    this.suite = suite
    this.mirror = mirror
    this.aptDir = join(toolsDir, 'apt', suite)
    this.root = join(toolsDir, 'debian', suite)
    this.libDirs = ['usr/lib', 'lib'].map((dir) => join(this.root, dir, MULTIARCH[process.arch] ?? 'unknown'))
  }

  apt() {
    this.#apt ??= openApt({ suite: this.suite, dir: this.aptDir, mirror: this.mirror })
    return this.#apt
  }

  /**
   * Packages and the libraries they need; those that `wanted` lets through are downloaded and verified.
   * @param {readonly string[]} names
   * @param {(item: import('./debian-control.mjs').DebPackage) => boolean} [wanted]
   * @returns {Promise<{ packages: import('./debian-control.mjs').DebPackage[], files: Map<string, string> }>}
   */
  async fetch(names, wanted = () => true) {
    const apt = await this.apt()
    try {
      return await this.#resolve(apt, names, wanted)
    } catch {
      // Most often the mirror moved on since the index was fetched. With a fresh index the error is the real one.
      await apt.update()
      return this.#resolve(apt, names, wanted)
    }
  }

  async #resolve(apt, names, wanted) {
    const packages = await libraryClosure(names, (level) => apt.show(level))
    return { packages, files: await this.#download(apt, packages.filter(wanted)) }
  }

  /**
   * Unpacks packages and their libraries into the prefix.
   * @returns {Promise<{ packages: import('./debian-control.mjs').DebPackage[] }>}
   */
  install(names) {
    return this.#serial(() => this.#install(names))
  }

  async #install(names) {
    const record = this.#record()
    const { packages, files } = await this.fetch(names, (item) => record[item.name] !== item.version)
    mkdirSync(this.root, { recursive: true })
    for (const [name, file] of files) {
      await run('dpkg-deb', ['-x', file, this.root])
      record[name] = packages.find((item) => item.name === name).version
      rmSync(file) // unpacked; keeping it would double the size of the tools directory
    }
    writeFileSync(this.#recordFile(), JSON.stringify(record, null, 1))
    return { packages }
  }

  /**
   * Makes a program of the prefix independent of the host's libraries.
   *
   * patchelf can not rewrite every non-PIE Go program (it then makes segments
   * overlap). Such a program stays as it is if the host's own libraries
   * satisfy it, which for a libc-only program they nearly always do.
   * @param {string} path Relative to the prefix.
   * @returns {Promise<string>} Absolute path of the runnable file.
   */
  adopt(path) {
    return this.#serial(async () => {
      const file = realpathSync(join(this.root, path))
      chmodSync(file, 0o755)
      const elf = readElf(file)
      if (!elf?.interpreter) return join(this.root, path) // a script or a static program needs nothing
      const loader = this.#loader()
      if (elf.interpreter === loader) await this.#assertClosed(file, loader)
      else await this.#patch(file, loader, elf.interpreter)
      return join(this.root, path)
    })
  }

  /** A library with a run path of its own ignores its program's; it gets the prefix's instead. */
  adoptLibrary(path) {
    return this.#serial(() => this.#patchelf(this.#loader(), ['--force-rpath', '--set-rpath', this.libDirs.join(':'), realpathSync(join(this.root, path))]))
  }

  async #patchelf(loader, args) {
    const patchelf = join(this.root, 'usr/bin/patchelf')
    if (!existsSync(patchelf)) await this.#install(['patchelf'])
    await run(loader, ['--library-path', this.libDirs.join(':'), patchelf, ...args])
  }

  async #patch(file, loader, hostLoader) {
    const next = `${file}.patched`
    copyFileSync(file, next)
    try {
      // DT_RPATH, not DT_RUNPATH: it must also serve the libraries' own dependencies and dlopen.
      await this.#patchelf(loader, ['--set-interpreter', loader, '--force-rpath', '--set-rpath', this.libDirs.join(':'), next])
      await this.#assertClosed(next, loader)
      renameSync(next, file)
    } catch (cause) {
      rmSync(next, { force: true })
      const { code, stdout } = await run(hostLoader, ['--list', file], { check: false })
      if (code !== 0 || stdout.includes('not found')) throw cause
      progress('tools', `${basename(file)} can not be patched; the libraries of this host satisfy it`)
    }
  }

  async #assertClosed(file, loader) {
    const { stdout } = await run(loader, ['--list', file], { env: { PATH: process.env.PATH ?? '' } })
    const strays = stdout
      .split('\n')
      .map((line) => /=>\s+(\/\S+|not found)/.exec(line)?.[1])
      .filter((target) => target && !target.startsWith(`${this.root}/`))
    if (strays.length > 0) {
      throw new BootstrapError(`${file} would use libraries outside its prefix: ${strays.join(', ')}`)
    }
  }

  #loader() {
    const name = LOADER[process.arch]
    const file = name && this.libDirs.map((dir) => join(dir, name)).find((candidate) => existsSync(candidate))
    if (!file) throw new BootstrapError(`no dynamic loader for ${process.arch} in the ${this.suite} prefix`)
    return file
  }

  async #download(apt, packages) {
    for (let attempt = 1; ; attempt += 1) {
      const files = await apt.download(packages)
      const damaged = packages.filter((item) => sha256(files.get(item.name)) !== item.sha256) // I1
      if (damaged.length === 0) return files
      const names = damaged.map((item) => item.name).join(', ')
      // A bootstrap killed half way leaves a short file; one fresh download settles that.
      if (attempt === 2) throw new BootstrapError(`wrong SHA-256 after a fresh download: ${names}`)
      for (const item of damaged) rmSync(files.get(item.name))
    }
  }

  #recordFile() {
    return join(this.root, 'packages.json')
  }

  #record() {
    return existsSync(this.#recordFile()) ? JSON.parse(readFileSync(this.#recordFile(), 'utf8')) : {}
  }

  #serial(task) {
    const result = this.#queue.then(task)
    this.#queue = result.catch(() => undefined) // the caller gets the error; the queue goes on
    return result
  }
}

export function sha256(file) {
  return createHash('sha256').update(readFileSync(file)).digest('hex')
}
