/**
 * A mode is a way to get the sandbox that a command runs in, and to let go of it.
 * Everything else (admission, deadline, output, accounting, ledger) is the same for all of them.
 */
import { FaasError, type ExecutionMode, type InstanceId, type Outcome, type ResolvedImage, type Sandbox, type SandboxStats } from '@faas-platform/core'
import type { Instances } from './instances.js'
import type { Placement, Progress } from './placement.js'
import type { Retention } from './retention.js'
import type { AcceptedWork } from './types.js'

export interface LeaseEnd {
  readonly outcome: Outcome
  /** Null when the sandbox could not be measured. */
  readonly statsAfter: Promise<SandboxStats | null>
  readonly sandboxSpent: boolean
}

export interface SandboxLease {
  readonly sandbox: Sandbox
  readonly image: ResolvedImage
  readonly start: 'warm' | 'cold' | 'reused'
  readonly statsBefore: SandboxStats | null
  readonly instanceId: InstanceId | null
  /** Between the image's environment and the request's. */
  readonly env: Readonly<Record<string, string>>
  /** Called once, after the reply. Resolves when its resources are free. Never rejects. */
  release(end: LeaseEnd): Promise<void>
}

export interface ModeStrategy {
  /** @throws FaasError with what keeps this request from a sandbox */
  acquire(work: AcceptedWork, progress: Progress): Promise<SandboxLease>
}

export type ModeTable = Readonly<Record<ExecutionMode, ModeStrategy>>

export function modeTable(parts: { readonly placement: Placement; readonly retention: Retention; readonly instances: Instances }): ModeTable {
  return {
    ephemeral: ephemeral(parts.placement, parts.retention),
    persistent: persistent(parts.instances),
    cached: notHere('cached'),
    checkpointed: notHere('checkpointed'),
    branched: notHere('branched'),
  }
}

/** A fresh sandbox for one command; its end state stays addressable for a while. */
function ephemeral(placement: Placement, retention: Retention): ModeStrategy {
  return {
    async acquire(work, progress) {
      const { request } = work
      const placed = await placement.obtain({ ...request, features: [] }, progress)
      return {
        sandbox: placed.sandbox,
        image: placed.image,
        start: placed.start,
        statsBefore: placed.statsBefore,
        instanceId: null,
        env: {},
        release: (end) => retention.settle(work, placed, end),
      }
    },
  }
}

/** A sandbox that lives on: the one named, or a new one. */
function persistent(instances: Instances): ModeStrategy {
  return {
    async acquire(work, progress) {
      const { request, principal } = work
      const instanceId = request.instanceId ?? (await instances.create(principal, {
        name: null, image: request.image, runtime: request.runtime, isolationFloor: request.isolationFloor, limits: request.limits,
        network: request.network, env: request.env, labels: request.labels,
      }, { createdBy: work.id, progress })).id
      return instances.enter(instanceId, principal, progress, { fresh: request.instanceId === undefined })
    },
  }
}

function notHere(mode: ExecutionMode): ModeStrategy {
  return {
    acquire() {
      return Promise.reject(new FaasError('mode/unsupported', { message: `The execution mode ${mode} is not available on this gateway.`, hint: 'Use `ephemeral` or `persistent`.', details: { mode } }))
    },
  }
}
