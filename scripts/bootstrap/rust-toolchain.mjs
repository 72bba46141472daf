/**
 * Rust from Debian packages for machines without cargo: compiler, standard
 * library, linker driver and a static C library, all in the private prefix.
 * Enough to build a static program that uses the standard library only.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { DebianPrefix } from './debian-prefix.mjs'
import { findMirror } from './debian-sources.mjs'
import { withLock } from './lock.mjs'
import { pathWithTools, TOOLS_DIR } from './paths.mjs'
import { BootstrapError } from './process.mjs'
import { progress } from './progress.mjs'

// The agent's sources need a compiler newer than the stable suite's 1.85.
const SUITE = 'sid'
const PACKAGES = ['patchelf', 'cargo', 'rustc', 'libstd-rust-dev', 'gcc', 'binutils', 'libc6-dev']

/**
 * @returns {Promise<NodeJS.ProcessEnv>} An environment whose PATH holds cargo, rustc and a linker.
 * @throws BootstrapError saying how to get Rust otherwise.
 */
export async function ensureRust() {
  const mirror = findMirror()
  const hint = 'install Rust 1.89 or newer and a C linker: apt-get install cargo gcc libc6-dev, or rustup'
  if (!mirror) throw new BootstrapError('no cargo, and no Debian mirror to fetch it from', { hint })
  const bin = join(TOOLS_DIR, 'rust', 'bin')
  mkdirSync(bin, { recursive: true })
  const stamp = join(TOOLS_DIR, 'rust', 'ready')
  try {
    await withLock(TOOLS_DIR, 'rust', async () => {
      if (existsSync(stamp) && readFileSync(stamp, 'utf8') === TOOLS_DIR) return
      await install(new DebianPrefix({ suite: SUITE, toolsDir: TOOLS_DIR, mirror }), bin)
      writeFileSync(stamp, TOOLS_DIR)
    })
  } catch (cause) {
    throw new BootstrapError(`Rust can not be fetched: ${cause.message}`, { hint, cause })
  }
  const linker = join(bin, 'cc')
  return {
    ...process.env,
    PATH: `${bin}:${pathWithTools()}`,
    CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER: linker,
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER: linker,
  }
}

async function install(prefix, bin) {
  // The toolchain's packages depend on each other by names that are no libraries; ask for them all.
  const { packages } = await prefix.install([...PACKAGES, ...(await dependents(prefix))])
  const gcc = find(join(prefix.root, 'usr/bin'), /-linux-gnu-gcc-\d+$/)
  const linker = find(join(prefix.root, 'usr/bin'), /-linux-gnu-ld\.bfd$/)
  const libexec = join(prefix.root, 'usr/libexec/gcc')
  const collect2 = readdirSync(libexec, { recursive: true }).find((name) => name.endsWith('/collect2'))
  for (const dir of prefix.libDirs.filter((candidate) => existsSync(candidate))) {
    const llvm = readdirSync(dir).find((name) => /^libLLVM\.so\./.test(name))
    if (llvm) await prefix.adoptLibrary(relative(prefix.root, join(dir, llvm)))
  }
  const adopted = {}
  for (const [name, path] of Object.entries({ cargo: 'usr/bin/cargo', rustc: 'usr/bin/rustc', gcc: `usr/bin/${gcc}`, ld: `usr/bin/${linker}` })) {
    adopted[name] = await prefix.adopt(path)
  }
  await prefix.adopt(`usr/libexec/gcc/${collect2}`)
  for (const name of ['cargo', 'rustc']) writeWrapper(join(bin, name), `exec '${adopted[name]}' "$@"`)
  // gcc looks for `ld` in -B directories; libc.so is a linker script with absolute paths, hence the sysroot.
  writeWrapper(join(bin, 'ld'), `exec '${adopted.ld}' "$@"`)
  const libraries = prefix.libDirs.flatMap((dir) => [`-B'${dir}/'`, `-L'${dir}'`]).join(' ')
  writeWrapper(join(bin, 'cc'), `exec '${adopted.gcc}' -B'${bin}' --sysroot='${prefix.root}' ${libraries} "$@"`)
  progress('rust', `${packages.find(({ name }) => name === 'rustc').version} from debian ${SUITE}`)
}

/** cargo and gcc are thin packages: their versioned parts carry the files. */
async function dependents(prefix) {
  const apt = await prefix.apt()
  const wanted = /^(gcc|cpp)-\d+(-[a-z0-9-]+-linux-gnu)?$|^libgcc-\d+-dev$|^libstd-rust-[\d.]+(-dev)?$|^binutils-[a-z0-9-]+-linux-gnu$|^linux-libc-dev$|^libc-dev-bin$/
  const names = new Set()
  let level = PACKAGES
  while (level.length > 0) {
    const packages = await apt.show(level)
    level = packages.flatMap(({ depends }) => depends.flat()).filter((name) => wanted.test(name) && !names.has(name))
    for (const name of level) names.add(name)
  }
  return [...names]
}

function find(dir, pattern) {
  const name = readdirSync(dir).find((entry) => pattern.test(entry))
  if (!name) throw new BootstrapError(`nothing like ${pattern} in ${dir}`)
  return name
}

function writeWrapper(file, line) {
  writeFileSync(file, `#!/bin/sh\n${line}\n`)
  chmodSync(file, 0o755)
}
