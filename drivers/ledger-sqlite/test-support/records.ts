/** Records for tests, complete and valid. */
import { asId, type ExecutionId, type ExecutionRecord, type ExecutionResult, type ExecutionState, type PrincipalId } from '@faas-platform/core'

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text)

export function record(id: string, changes: Partial<ExecutionRecord> = {}): ExecutionRecord {
  return {
    id: asId<ExecutionId>(id), principal: asId<PrincipalId>('alice'), kind: 'async', state: 'queued', incarnation: 0, attempt: 0,
    request: {
      argv: ['/bin/sh', '-c', 'echo "ü" \u0000?'.replace('\u0000', '')], image: 'faas/base:latest', runtime: 'auto', isolationFloor: 'none', mode: 'ephemeral', timeoutMs: 1000,
      limits: { memoryBytes: 1, cpuCores: 0.5, pidsMax: 3, writableBytesMax: 4 }, network: { mode: 'none', allowCidrs: ['10.0.0.0/8'] }, env: { A: 'b' },
      stdin: new Uint8Array([9, 0, 255, 1, 9]).subarray(1, 4), outputBytesMax: 10, logBytesMax: 20, rerunnable: true, labels: { team: 'x' },
    },
    result: null, outline: null, idempotencyKey: null, requestHash: null, instanceId: null, createdAtMs: 1_700_000_000_000, startedAtMs: null, endedAtMs: null, ...changes,
  }
}

export function ended(from: ExecutionRecord, endedAtMs: number, state: ExecutionState = 'succeeded'): ExecutionRecord {
  const result: ExecutionResult = {
    id: from.id, principal: from.principal, state, outcome: 'exited', exitCode: 0, signal: null,
    stdout: { bytes: bytesOf('out\n'), totalBytes: 4, truncated: false }, stderr: { bytes: new Uint8Array([255, 0]), totalBytes: 2, truncated: false },
    message: null, errorCode: null, imageDigest: asId(`sha256:${'0'.repeat(64)}`), imageStandIn: false,
    decision: { runtime: 'runc', isolation: 'process', reason: 'because' }, start: 'warm',
    usage: { wallMs: 1.5, cpuMs: 0.25, memoryPeakBytes: 4096, outputBytes: 6 }, timeBudget: { queue: 0.01, run: 1.5 }, instanceId: null,
    createdAtMs: from.createdAtMs, startedAtMs: from.createdAtMs + 1, endedAtMs,
  }
  return { ...from, state, incarnation: from.incarnation + 1, result, outline: [['queued', 0, 1], ['stdout', 4, 2], ['stderr', 2, 3]], startedAtMs: result.startedAtMs, endedAtMs }
}
