import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { eventually } from './eventually.js'
import { leakCounter, leaked } from './leak-counter.js'

describe('leakCounter', () => {
  let dataDir = ''
  beforeEach(async () => {
    dataDir = await mkdtemp(join(tmpdir(), 'faas-leak-'))
  })
  afterEach(() => rm(dataDir, { recursive: true, force: true }))
  const counter = () => leakCounter({ dataDir, hostPrefix: `${dataDir.slice(-6)}-prefix` })

  it('sees nothing where nothing is, twice the same', () => {
    const count = counter()
    expect({ ...count(), fds: 0 }).toEqual({ fds: 0, mounts: 0, cgroups: 0, networkNamespaces: 0, processes: 0, directories: 0 })
    expect(leaked(count(), count())).toEqual({})
  })

  it('sees a process by what its command line names, with its network namespace, and that it is gone', async () => {
    const count = counter()
    const before = count()
    const child = spawn('sleep', ['1000'], { argv0: `agent-of-${dataDir}`, stdio: 'ignore' })
    await eventually(() => count().processes === 1)
    expect(leaked(before, count())).toEqual({ processes: 1, networkNamespaces: 1 })
    child.kill('SIGKILL')
    await eventually(() => Object.keys(leaked(before, count())).length === 0)
  })

  it('sees what sandboxes leave in the data directory, and nothing else there', async () => {
    const count = counter()
    const before = count()
    await mkdir(join(dataDir, 'sandboxes/one'), { recursive: true })
    await mkdir(join(dataDir, 'images'))
    await writeFile(join(dataDir, 'ledger.sqlite'), '')
    expect(leaked(before, count())).toEqual({ directories: 1 })
  })

  it('sees open files beyond the slack', async () => {
    const count = counter()
    const before = count()
    const handles = await Promise.all(Array.from({ length: 8 }, () => open('/dev/null')))
    expect(leaked(before, count(), { fds: 3 }).fds).toBeGreaterThanOrEqual(8)
    await Promise.all(handles.map((handle) => handle.close()))
    expect(leaked(before, count())).toEqual({})
  })
})
