import { mkdtemp, realpath, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { prepareDataDir } from './data-dir.js'

let root: string

beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'faas-data-dir-')))
})
afterEach(() => rm(root, { recursive: true, force: true }))

describe('the data directory', () => {
  it('is made, and named by its true path however it was given', async () => {
    const dir = join(root, 'a', 'b')
    expect(await prepareDataDir(dir)).toBe(dir)
    expect((await stat(join(dir, 'run'))).isDirectory()).toBe(true)
    await symlink(dir, join(root, 'link'))
    expect(await prepareDataDir(join(root, 'link'))).toBe(dir)
    expect(await prepareDataDir(relative(process.cwd(), dir))).toBe(dir)
  })

  it('that can not be used ends the start with its path and what to do', async () => {
    await writeFile(join(root, 'file'), '')
    await expect(prepareDataDir(join(root, 'file'))).rejects.toMatchObject({ code: 'config/invalid', message: `The data directory ${join(root, 'file')} can not be used (ENOTDIR).` })
  })
})
