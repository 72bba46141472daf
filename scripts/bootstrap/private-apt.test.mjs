import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { findMirror } from './debian-sources.mjs'
import { openApt } from './private-apt.mjs'
import { which } from './process.mjs'

it.skipIf(!which('apt-get'))('parts of the set-up may open one suite at the same time', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'faas-apt-'))
  try {
    const mirror = await findMirror()
    const opened = await Promise.all([1, 2, 3].map(() => openApt({ suite: 'bookworm-backports', dir, mirror })))
    for (const apt of opened) expect(await apt.show(['runsc'])).toMatchObject([{ name: 'runsc' }])
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}, 120_000)
