/** The built command as a process of its own, with real signals and pipes. `npm test` builds it first; `npx tsc -b` does by hand. */
import { spawn } from 'node:child_process'
import { cp, mkdtemp, mkdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { eventually } from '@faas-platform/testkit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeRig, type Rig } from './testing/rig.js'

const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
const FAAS = [join(ROOT, 'apps/cli/bin/faas.js')]

interface Process {
  readonly ended: Promise<{ readonly code: number | null; readonly out: string; readonly err: string }>
  readonly out: () => string
  signal(name: NodeJS.Signals): void
  closeOutput(): void
}

function start(argv: readonly string[], env: Readonly<Record<string, string>>, program: readonly string[] = FAAS): Process {
  const child = spawn(process.execPath, [...program, ...argv], { cwd: ROOT, env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
  return {
    ended: new Promise((resolve) => child.on('close', (code) => resolve({ code, out, err }))),
    out: () => out,
    signal: (name) => void child.kill(name),
    closeOutput: () => child.stdout.destroy(),
  }
}

let rig: Rig
beforeAll(async () => void (rig = await makeRig()))
afterAll(() => rig[Symbol.asyncDispose]())

const nothingRuns = async (): Promise<boolean> => (await rig.say('ps', '-q')) === ''

describe('the process', () => {
  it.each([['SIGINT', 130], ['SIGTERM', 143]] as const)('ended by %s has ended the guest and says %d', async (name, code) => {
    const run = start(['run', 'echo started; sleep 600'], { FAAS_URL: rig.url })
    await eventually(() => run.out() === 'started\n', { deadlineMs: 20_000 })
    run.signal(name)
    expect(await run.ended).toEqual({ code, out: 'started\n', err: '' })
    await eventually(nothingRuns)
  })

  it('ends quietly, and the guest with it, when its reader goes away', async () => {
    const run = start(['run', 'while true; do echo line; sleep 0.05; done'], { FAAS_URL: rig.url })
    await eventually(() => run.out().includes('line'), { deadlineMs: 20_000 })
    run.closeOutput()
    expect(await run.ended).toMatchObject({ code: 141, err: '' })
    await eventually(nothingRuns)
  })

  it('doctor has its say before it ends, with no runtime at all', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'faas-cli-doctor-'))
    try {
      const { code, out, err } = await start(['doctor'], { FAAS_URL: rig.url, FAAS_RUNTIMES: 'docker', FAAS_DOCKER_SOCKET: join(dataDir, 'none.sock'), FAAS_DATA_DIR: dataDir, FAAS_TOOLS_DIR: dataDir }).ended
      expect({ code, err }).toEqual({ code: 69, err: '' })
      expect(out).toContain(`gateway  ${rig.url} is healthy`)
      expect(out).toMatch(/docker {2}not usable[\s\S]*to get it:/)
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
  })

  it('gateway serves on a free port until it is told to stop, and then ends with 0', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'faas-cli-gateway-'))
    try {
      const gateway = start(['gateway', '--port', '0', '--data-dir', dataDir], { FAAS_RUNTIMES: 'docker', FAAS_DOCKER_SOCKET: join(dataDir, 'none.sock'), FAAS_TOOLS_DIR: dataDir })
      await eventually(() => gateway.out().startsWith('Serving on http://127.0.0.1:'), { deadlineMs: 30_000 })
      const url = /http:\/\/\S+/.exec(gateway.out())?.[0] ?? ''
      expect(await rig.faas(['run', 'true'], { env: { FAAS_URL: url } })).toMatchObject({ code: 69, err: expect.stringContaining('`faas doctor` says what each runtime lacks') as string })
      gateway.signal('SIGTERM')
      expect((await gateway.ended).code).toBe(0)
    } finally {
      await rm(dataDir, { recursive: true, force: true })
    }
  })

  it('of a checkout that is not built says how to build it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'faas-cli-bin-'))
    try {
      await mkdir(join(dir, 'bin'))
      await cp(join(ROOT, 'apps/cli/bin/faas.js'), join(dir, 'bin/faas.mjs'))
      expect(await start([], {}, [join(dir, 'bin/faas.mjs')]).ended).toEqual({ code: 69, out: '', err: expect.stringContaining('npm run build') as string })
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  })
})
