import { describe, expect, it } from 'vitest'
import { eventually } from '@faas-platform/testkit'
import { isHangupIgnored, takeSignals } from './signals.js'

describe('signals', () => {
  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)('%s asks to stop while they are taken, and is given back', async (name) => {
    const before = process.listeners(name)
    let asked = 0
    const giveBack = takeSignals(() => asked++)
    try {
      process.kill(process.pid, name)
      await eventually(() => asked === 1)
    } finally {
      giveBack()
    }
    expect(process.listeners(name)).toEqual(before)
  })

  it('leave a hangup alone that the caller had ignored, as nohup does', () => {
    expect(isHangupIgnored('SigBlk:\t0000000000000000\nSigIgn:\t0000000001001001\nSigCgt:\t0\n')).toBe(true)
    expect(isHangupIgnored('SigBlk:\t0000000000000001\nSigIgn:\t0000000001001000\n')).toBe(false)
    expect(isHangupIgnored('')).toBe(false)
  })
})
