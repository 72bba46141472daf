#!/usr/bin/env node
// Committed as it is, so that npm links `faas` at installation, before anything is built.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const main = new URL('../dist/main.js', import.meta.url)
if (existsSync(fileURLToPath(main))) await import(main.href)
else {
  process.stderr.write('faas is not built yet: `npm start` builds and starts everything, `npm run build` only builds.\n')
  process.exitCode = 69
}
