import { ERROR_CODES, ERROR_KINDS, type ErrorCode, FaasError } from '@faas-platform/core'
import { executionResultOf, FaaSApiError } from '@faas-platform/sdk'
import { describe, expect, it } from 'vitest'
import { EXIT_CODE, exitCodeOf, exitCodeOfResult, Interruption } from './exit-codes.js'

const result = (fields: Record<string, unknown>): ReturnType<typeof executionResultOf> => executionResultOf({ request_id: 'r', stdout: '', stderr: '', ...fields })

describe('exit codes', () => {
  it('every kind of error has one, and none of them means success', () => {
    expect(Object.keys(EXIT_CODE).sort()).toEqual([...ERROR_KINDS].sort())
    for (const code of Object.values(EXIT_CODE)) expect(code).toBeGreaterThan(0)
  })

  it('every code of the platform maps by its kind, wherever it was thrown', () => {
    for (const [code, { kind }] of Object.entries(ERROR_CODES)) {
      expect(exitCodeOf(new FaasError(code as ErrorCode, { message: 'x' })), code).toBe(EXIT_CODE[kind])
      expect(exitCodeOf(new FaaSApiError('x', { code, status: 500 })), code).toBe(EXIT_CODE[kind])
    }
    expect(exitCodeOf(new TypeError('x'))).toBe(70)
  })

  it.each([
    [{ outcome: 'exited', exit_code: 0 }, 0],
    [{ outcome: 'exited', exit_code: 7 }, 7],
    [{ outcome: 'signaled', exit_code: 143 }, 143],
    [{ outcome: 'oom', exit_code: 137, error_code: null }, 137],
    [{ outcome: 'deadline', exit_code: 124, error_code: 'execution/deadline' }, 124],
    [{ outcome: 'cancelled', exit_code: 9, error_code: 'execution/cancelled' }, 130],
    [{ outcome: 'disk_limit', exit_code: 137, error_code: 'execution/disk-limit' }, 73],
    [{ outcome: 'spawn_failed', exit_code: -1, error_code: 'execution/spawn-failed' }, 127],
    [{ outcome: 'error', exit_code: -1, error_code: 'sandbox/lost' }, 70],
    [{ outcome: 'error', exit_code: -1 }, 70],
  ])('a result %j ends the command with %d', (fields, code) => expect(exitCodeOfResult(result(fields))).toBe(code))

  it('an interruption is reported as a shell does', () => {
    expect([new Interruption('SIGINT').exitCode, new Interruption('SIGTERM').exitCode]).toEqual([130, 143])
  })
})
