/**
 * The folders are the architecture: imports only point inward. apps → executor → core ← drivers.
 *
 * I1. A package imports only what its row of `ALLOWED` names; a new edge is a decision, made here.
 * I2. Drivers are named by main files of apps, tests and benchmarks only.
 * I3. Core imports nothing: no package, no module of Node.
 * I4. A relative import never leaves its package.
 * I5. What a source file imports is declared in the package's manifest.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const SCOPE = '@faas-platform/'

const LIBRARIES = ['core', 'executor', 'config', 'protocol', 'agent-client', 'host']
const DRIVERS = ['runtime-oci', 'runtime-docker', 'image-store-oci', 'ledger-sqlite']
/** Package folder → packages that its sources may import. */
const ALLOWED: Readonly<Record<string, readonly string[]>> = {
  'packages/core': [],
  'packages/agent-client': ['core'],
  'packages/host': ['core'],
  'packages/config': ['core'],
  'packages/protocol': ['core'],
  'packages/executor': ['core'],
  'packages/testkit': ['core'],
  'drivers/image-store-oci': ['core', 'host'],
  'drivers/ledger-sqlite': ['core'],
  'drivers/runtime-docker': ['core', 'host', 'agent-client'],
  'drivers/runtime-oci': ['core', 'host', 'agent-client'],
  'apps/gateway': LIBRARIES,
  'apps/cli': [...LIBRARIES, 'gateway', 'sdk'],
  'sdks/typescript': [],
}
/** Files of apps that wire drivers by constructor (I2). */
const MAIN_FILES = ['apps/gateway/src/main.ts', 'apps/cli/src/main.ts']

interface Import {
  readonly file: string
  readonly target: string
}

const packages = ['packages', 'drivers', 'apps', 'sdks'].flatMap((area) =>
  readdirSync(join(ROOT, area)).map((name) => `${area}/${name}`).filter((dir) => existsSync(join(ROOT, dir, 'package.json'))))

function files(dir: string): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    if (['node_modules', 'dist', 'target'].includes(entry.name)) return []
    const path = join(dir, entry.name)
    return entry.isDirectory() ? files(path) : /\.(ts|tsx|mts)$/.test(entry.name) ? [path] : []
  })
}

const isTest = (file: string): boolean => /\.test\.ts$|\/testing\//.test(file)

function importsOf(dir: string): Import[] {
  return files(join(ROOT, dir, 'src')).flatMap((path) => {
    const source = readFileSync(path, 'utf8')
    const found = source.matchAll(/^\s*(?:import|export)\b[^'"`;]*?from\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*(?:\/\*.*?\*\/\s*)?['"]([^'"]+)['"]/gm)
    return [...found].map((match) => ({ file: relative(ROOT, path), target: match[1] ?? match[2] ?? match[3] ?? '' }))
  })
}

const packageOf = (target: string): string => target.slice(SCOPE.length).split('/')[0] ?? ''

describe.each(packages)('%s', (dir) => {
  const imports = importsOf(dir)
  const own = imports.filter(({ file }) => !isTest(file))
  const show = (list: readonly Import[]): string[] => list.map(({ file, target }) => `${file} imports ${target}`)

  it('has a row in the table of allowed imports', () => {
    expect(Object.keys(ALLOWED)).toContain(dir)
  })

  it('imports only what points inward', () => {
    const forbidden = own.filter(({ file, target }) => {
      if (!target.startsWith(SCOPE)) return false
      const name = packageOf(target)
      if (DRIVERS.includes(name) && MAIN_FILES.includes(file)) return false // I2
      return !(ALLOWED[dir] ?? []).includes(name) // I1
    })
    expect(show(forbidden)).toEqual([])
  })

  it('never leaves itself by a relative path', () => {
    const leaving = imports.filter(({ file, target }) => target.startsWith('.') && relative(join(ROOT, dir), resolve(ROOT, dirname(file), target)).startsWith('..')) // I4
    expect(show(leaving)).toEqual([])
  })

  it('declares every package that it imports', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, dir, 'package.json'), 'utf8')) as Record<'name' | 'dependencies' | 'devDependencies' | 'peerDependencies' | 'optionalDependencies', Record<string, string> | undefined>
    const declared = { ...manifest.dependencies, ...manifest.peerDependencies, ...manifest.optionalDependencies }
    // What the root offers to every test.
    const forTests = { ...declared, ...manifest.devDependencies, vitest: '', 'fast-check': '', vite: '' }
    const missing = imports.filter(({ file, target }) => {
      if (target.startsWith('.') || target.startsWith('node:')) return false
      const name = target.startsWith('@') ? target.split('/').slice(0, 2).join('/') : (target.split('/')[0] ?? '')
      return name !== String(manifest.name) && !(name in (isTest(file) ? forTests : declared)) // I5
    })
    expect(show(missing)).toEqual([])
  })
})

it('the walk sees what there is: the gateway wires drivers in its main file, the executor lives on core', () => {
  const seen = (dir: string, target: string): number => importsOf(dir).filter((one) => one.target === target).length
  expect(seen('apps/gateway', `${SCOPE}runtime-oci`)).toBeGreaterThan(0)
  expect(seen('packages/executor', `${SCOPE}core`)).toBeGreaterThan(10)
})

it('core imports no package and no module of Node', () => {
  const foreign = importsOf('packages/core').filter(({ file, target }) => !isTest(file) && !target.startsWith('.')) // I3
  expect(foreign).toEqual([])
})

it('the client SDK imports nothing but itself, so that it runs in a browser', () => {
  const foreign = importsOf('sdks/typescript').filter(({ file, target }) => !isTest(file) && !target.startsWith('.'))
  expect(foreign).toEqual([])
})
