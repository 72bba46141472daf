import { readFileSync } from 'node:fs'

/** While the gateway serves, signals are its own: a drain is not an interruption. @returns what gives them back */
export function takeSignals(ask: () => void): () => void {
  // A terminal that closes asks to stop, too; not so under nohup.
  const names = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).filter((name) => name !== 'SIGHUP' || !isHangupIgnored(processStatus()))
  const before = names.map((name) => [name, process.listeners(name)] as const)
  for (const name of names) {
    process.removeAllListeners(name)
    process.on(name, ask)
  }
  return () => {
    for (const [name, listeners] of before) {
      process.removeListener(name, ask)
      for (const listener of listeners) process.on(name, listener)
    }
  }
}

/** @param status `/proc/self/status`. @see proc_pid_status(5) */
export function isHangupIgnored(status: string): boolean {
  const ignored = /^SigIgn:\s*([0-9a-f]+)$/m.exec(status)?.[1]
  return ignored !== undefined && (BigInt(`0x${ignored}`) & 1n) === 1n // SIGHUP is signal 1, the lowest bit.
}

function processStatus(): string {
  try {
    return readFileSync('/proc/self/status', 'utf8')
  } catch {
    return '' // Without /proc nobody can tell; hardly anybody ignores the signal.
  }
}
