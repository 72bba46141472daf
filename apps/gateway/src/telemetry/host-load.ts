/** How busy the host is: CPU since the last look, memory now. */
import { cpus, freemem, totalmem } from 'node:os'
import { MIB } from '@faas-platform/core'

export class HostLoad {
  #last = cpuTimes()

  /** Percent of all cores together, 0 to 100. */
  cpuPercent(): number {
    const now = cpuTimes()
    const total = now.total - this.#last.total
    const busy = total - (now.idle - this.#last.idle)
    this.#last = now
    return total <= 0 ? 0 : Math.round((busy / total) * 1000) / 10
  }

  memoryUsedMib(): number {
    return Math.round((totalmem() - freemem()) / MIB)
  }

  memoryPercent(): number {
    return Math.round(((totalmem() - freemem()) / totalmem()) * 1000) / 10
  }
}

function cpuTimes(): { readonly idle: number; readonly total: number } {
  let idle = 0
  let total = 0
  for (const { times } of cpus()) {
    idle += times.idle
    total += times.idle + times.user + times.nice + times.sys + times.irq
  }
  return { idle, total }
}
