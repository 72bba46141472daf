#!/usr/bin/env node
/** The `faas` command: process edges only. */
import { silentLog } from '@faas-platform/core'
import { openKeyLedger, openPlatform, probeRuntimes, runGateway } from '@faas-platform/gateway/main'
import { runProgram } from './program.js'

const controller = new AbortController()
const stop = (): void => {
  if (controller.signal.aborted) process.exit(130) // asked twice: do not wait for anything
  controller.abort(new Error('interrupted'))
}
process.on('SIGINT', stop)
process.on('SIGTERM', stop)
// A reader that goes away (`faas logs | head`) ends the command quietly, as other tools do.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(141)
  throw error
})

process.exitCode = await runProgram(process.argv.slice(2), {
  environment: process.env,
  streams: { in: process.stdin, out: process.stdout, err: process.stderr },
  platform: {
    openLedger: openKeyLedger,
    open: (config) => openPlatform(config, silentLog),
    probe: (config) => probeRuntimes(config, silentLog),
    serve: runGateway,
  },
  signal: controller.signal,
  exitCode: 0,
})
