/** The `faas` command: process edges only. */
import { silentLog } from '@faas-platform/core'
import { openKeyLedger, openPlatform, probeRuntimes, runGateway, toolsDir } from '@faas-platform/gateway/main'
import { Interruption } from './exit-codes.js'
import { runProgram } from './program.js'

const controller = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    const interruption = new Interruption(name)
    if (controller.signal.aborted) process.exit(interruption.exitCode) // asked twice: do not wait for anything
    controller.abort(interruption)
  })
}
// A reader that goes away (`faas logs | head`) ends the command quietly, as other tools do.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(141)
  throw error
})

// Helpers do not hold this process; a command that waits for nothing else must not end for that.
const awake = setInterval(() => undefined, 2 ** 30)
try {
  process.exitCode = await runProgram(process.argv.slice(2), {
    environment: process.env,
    streams: {
      get in() {
        return process.stdin // only a command that reads it may open it
      },
      out: process.stdout, err: process.stderr,
    },
    platform: {
      openLedger: openKeyLedger,
      open: (config) => openPlatform(config, silentLog),
      probe: (config) => probeRuntimes(config, silentLog),
      serve: runGateway,
      toolsDir,
    },
    signal: controller.signal,
    exitCode: 0,
  })
} finally {
  clearInterval(awake)
}
