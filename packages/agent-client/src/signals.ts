/** Signal names and numbers of Linux, the same on x86_64 and aarch64. */
import { FaasError } from '@faas-platform/core'

const NAMES = [
  'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGKILL', 'SIGUSR1', 'SIGSEGV',
  'SIGUSR2', 'SIGPIPE', 'SIGALRM', 'SIGTERM', 'SIGSTKFLT', 'SIGCHLD', 'SIGCONT', 'SIGSTOP', 'SIGTSTP', 'SIGTTIN',
  'SIGTTOU', 'SIGURG', 'SIGXCPU', 'SIGXFSZ', 'SIGVTALRM', 'SIGPROF', 'SIGWINCH', 'SIGIO', 'SIGPWR', 'SIGSYS',
] as const

/** Real-time signals have no fixed names; they read `SIGRT34` … `SIGRT64`. */
export function signalName(number: number): string {
  return NAMES[number - 1] ?? `SIGRT${number}`
}

/** @throws FaasError `request/invalid` for a name that is no signal. */
export function signalNumber(name: string): number {
  const index = (NAMES as readonly string[]).indexOf(name)
  if (index >= 0) return index + 1
  const realTime = /^SIGRT(\d{2})$/.exec(name)
  const number = Number(realTime?.[1] ?? 0)
  if (number >= 34 && number <= 64) return number
  throw new FaasError('request/invalid', { message: `There is no signal named ${JSON.stringify(name)}.` })
}
