/**
 * Named sandboxes that live on: create, run in, stop, delete; with a time to live and an idle limit.
 *
 * I1. An instance's state only changes through core's table, and every change goes to the ledger.
 * I2. A sandbox that ends by itself makes its instance `failed`, with the reason.
 * I3. Other principals' instances are not found.
 */
import {
  asId, FaasError, INSTANCE_STATES, isFaasError, transition, type Clock, type ExecutionId, type Ids, type InstanceId, type InstanceRecord,
  type InstanceState, type Ledger, type Lifecycle, type LogSink, type PrincipalId, type Sandbox,
} from '@faas-platform/core'
import type { InstancesConfig } from './config.js'
import type { Disposer } from './disposer.js'
import type { SandboxLease } from './modes.js'
import type { Placement, Progress } from './placement.js'
import type { CreateInstanceRequest, InstanceView } from './types.js'

interface Live {
  record: InstanceRecord
  sandbox: Sandbox | null
  active: number
}

export interface InstancesOptions {
  readonly config: InstancesConfig
  readonly recordTtlMs: number
  readonly placement: Placement
  readonly ledger: Ledger
  readonly disposer: Disposer
  readonly clock: Clock
  readonly ids: Ids
  readonly log: LogSink
}

export class Instances {
  readonly #live = new Map<InstanceId, Live>()
  /** Execution that created it → instance: the execution's id works as an alias. */
  readonly #aliases = new Map<string, InstanceId>()
  /** Creations on their way, per principal, so that a burst can not pass the limit. */
  #creating: PrincipalId[] = []

  constructor(private readonly options: InstancesOptions) {}

  get liveCount(): number {
    let count = 0
    for (const live of this.#live.values()) if (live.sandbox !== null) count++
    return count
  }

  /** Reads what the last process knew. Sandboxes do not outlive the process yet, so their instances are lost. Returns how many. */
  async load(): Promise<number> {
    let lost = 0
    for (const record of await this.options.ledger.listInstances()) {
      const live: Live = { record, sandbox: null, active: 0 }
      this.#index(live)
      if (record.state === 'stopped' || record.state === 'failed') continue
      lost++
      if (record.state === 'stopping') this.#become(live, 'stopped', 'The gateway was stopped.')
      else this.#become(live, 'failed', 'The gateway was stopped while the instance ran.')
    }
    return lost
  }

  /** @throws FaasError `instance/limit` and whatever keeps a sandbox from being made */
  async create(principal: PrincipalId, request: CreateInstanceRequest, { createdBy, progress }: { readonly createdBy: ExecutionId | null; readonly progress: Progress }): Promise<InstanceView> {
    this.#checkLimits(principal)
    this.#creating.push(principal)
    try {
      const placed = await this.options.placement.obtain({ ...request, features: [] }, progress)
      const now = this.options.clock.nowMs()
      const ttlMs = request.ttlMs === undefined ? this.options.config.ttlMs : request.ttlMs
      const record: InstanceRecord = {
        id: asId<InstanceId>(this.options.ids.uuid()), principal, name: request.name, createdBy, state: 'creating', incarnation: 0, message: null,
        runtime: placed.sandbox.runtime, sandboxId: placed.sandbox.id, image: placed.image, limits: request.limits, network: request.network,
        env: request.env, labels: request.labels, createdAtMs: now, lastUsedAtMs: now, expiresAtMs: ttlMs === null ? null : now + ttlMs,
        idleMsMax: request.idleMsMax === undefined ? this.options.config.idleMsMax : request.idleMsMax,
      }
      const live: Live = { record, sandbox: placed.sandbox, active: 0 }
      this.#index(live)
      this.#become(live, 'running', null)
      this.#watch(live, placed.sandbox)
      return this.#view(live)
    } finally {
      this.#creating.splice(this.#creating.indexOf(principal), 1)
    }
  }

  /** The lease of one command in a running instance. @throws FaasError `instance/not-found`, `instance/wrong-state` */
  enter(id: InstanceId, principal: PrincipalId, progress: Progress, { fresh }: { readonly fresh: boolean }): SandboxLease {
    const live = this.#find(id, principal)
    const { sandbox, record } = live
    if (record.state !== 'running' || sandbox === null) {
      throw new FaasError('instance/wrong-state', { message: `The instance is ${record.state}${record.message === null ? '' : `: ${record.message}`}`, details: { id: record.id, state: record.state } })
    }
    live.active++
    this.#touch(live)
    progress.decision ??= { runtime: record.runtime, isolation: this.#isolation(live), reason: `${record.runtime} runs this instance.` }
    progress.image = record.image
    if (!fresh) progress.watch.lap('acquire')
    return {
      sandbox,
      image: record.image,
      start: fresh ? 'cold' : 'reused',
      statsBefore: null, // Others may run in it at the same time: each is accounted by its own processes.
      instanceId: record.id,
      env: record.env,
      release: ({ sandboxSpent }) => {
        live.active--
        this.#touch(live)
        // A command that could not be ended, or an agent that does not answer: nothing more can run in there.
        return sandboxSpent ? this.#fail(live, sandbox, 'A command in it could not be ended, or its agent did not answer.') : Promise.resolve()
      },
    }
  }

  /** By its id or by that of the execution that created it. @throws FaasError `instance/not-found` */
  get(id: string, principal: PrincipalId | null): InstanceView {
    return this.#view(this.#find(id, principal))
  }

  /** The sandbox of a running instance, for streams and files. @throws FaasError `instance/not-found`, `instance/wrong-state` */
  sandbox(id: string, principal: PrincipalId | null): Sandbox {
    const { sandbox, record } = this.#find(id, principal)
    if (sandbox === null || record.state !== 'running') throw new FaasError('instance/wrong-state', { message: `The instance is ${record.state}.`, details: { id: record.id, state: record.state } })
    return sandbox
  }

  list(principal: PrincipalId | null): readonly InstanceView[] {
    return [...this.#live.values()]
      .filter(({ record }) => principal === null || record.principal === principal)
      .map((live) => this.#view(live))
      .sort((a, b) => b.createdAtMs - a.createdAtMs || (a.id < b.id ? -1 : 1))
  }

  /** Ends its processes and its sandbox; the record stays. Stopping a stopped one changes nothing. */
  async stop(id: string, principal: PrincipalId | null): Promise<InstanceView> {
    const live = this.#find(id, principal)
    await this.#stop(live, 'Stopped on request.')
    return this.#view(live)
  }

  async delete(id: string, principal: PrincipalId | null): Promise<void> {
    const live = this.#find(id, principal)
    await this.#stop(live, 'Deleted.')
    this.#live.delete(live.record.id)
    if (live.record.createdBy !== null) this.#aliases.delete(live.record.createdBy)
    await this.options.ledger.deleteInstance(live.record.id)
  }

  /** Stops what is over its time, forgets what stopped long ago. */
  sweep(): void {
    const now = this.options.clock.nowMs()
    for (const live of this.#live.values()) {
      const { record } = live
      const settled = record.state === 'stopped' || record.state === 'failed'
      if (settled && live.sandbox === null && now - record.lastUsedAtMs > this.options.recordTtlMs) void this.#report(this.delete(record.id, null))
      else if (record.expiresAtMs !== null && record.expiresAtMs <= now) void this.#report(this.#stop(live, 'Its time to live was over.'))
      else if (record.idleMsMax !== null && live.active === 0 && now - record.lastUsedAtMs > record.idleMsMax) void this.#report(this.#stop(live, 'It was idle for too long.'))
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.#live.values()].map((live) => this.#stop(live, 'The gateway was stopped.')))
  }

  #checkLimits(principal: PrincipalId): void {
    const { principalMax, max } = this.options.config
    let own = this.#creating.filter((id) => id === principal).length
    let all = this.#creating.length
    for (const { record, sandbox } of this.#live.values()) {
      if (sandbox === null) continue
      all++
      if (record.principal === principal) own++
    }
    if (own >= principalMax || all >= max) {
      throw new FaasError('instance/limit', { message: own >= principalMax ? `This caller has its ${principalMax} instances.` : `This gateway has its ${max} instances.`, hint: 'Stop or delete one first.' })
    }
  }

  #find(id: string, principal: PrincipalId | null): Live {
    const live = this.#live.get(this.#aliases.get(id) ?? asId<InstanceId>(id))
    if (live === undefined || (principal !== null && live.record.principal !== principal)) { // I3
      throw new FaasError('instance/not-found', { message: 'There is no such instance.', details: { id } })
    }
    return live
  }

  async #stop(live: Live, message: string): Promise<void> {
    const { sandbox } = live
    if (live.record.state === 'running' || live.record.state === 'paused') this.#become(live, 'stopping', message)
    else if (live.record.state === 'failed' && sandbox !== null) this.#become(live, 'stopping', live.record.message)
    if (sandbox !== null) {
      await this.options.disposer.push(`instance ${live.record.id}`, () => sandbox[Symbol.asyncDispose]())
      live.sandbox = null
    }
    if (live.record.state === 'stopping') this.#become(live, 'stopped', message)
  }

  #watch(live: Live, sandbox: Sandbox): void {
    void sandbox.exited.then((exit) => {
      if (live.record.state !== 'running' || live.sandbox !== sandbox) return // Stopped by us.
      void this.#fail(live, sandbox, exit.message)
    })
  }

  #fail(live: Live, sandbox: Sandbox, message: string): Promise<void> {
    if (live.record.state !== 'running' || live.sandbox !== sandbox) return Promise.resolve()
    this.options.log.warn({ instance: live.record.id, message }, 'an instance failed')
    this.#become(live, 'failed', message) // I2
    live.sandbox = null
    return this.options.disposer.push(`failed instance ${live.record.id}`, () => sandbox[Symbol.asyncDispose]())
  }

  #index(live: Live): void {
    this.#live.set(live.record.id, live)
    if (live.record.createdBy !== null) this.#aliases.set(live.record.createdBy, live.record.id)
  }

  #become(live: Live, state: InstanceState, message: string | null): void {
    const life: Lifecycle<InstanceState> = transition(INSTANCE_STATES, live.record, state)
    live.record = { ...live.record, state: life.state, incarnation: life.incarnation, message }
    void this.#report(this.options.ledger.putInstance(live.record, { durable: false })) // I1
  }

  #touch(live: Live): void {
    live.record = { ...live.record, lastUsedAtMs: this.options.clock.nowMs() }
  }

  #isolation(live: Live): NonNullable<Progress['decision']>['isolation'] {
    return this.options.placement.isolationOf(live.record.runtime)
  }

  async #report(done: Promise<unknown>): Promise<void> {
    try {
      await done
    } catch (error) {
      this.options.log.error({ err: error, code: isFaasError(error) ? error.code : undefined }, 'an instance could not be stored or stopped')
    }
  }

  #view({ record, active }: Live): InstanceView {
    return {
      id: record.id, name: record.name, principal: record.principal, createdBy: record.createdBy, state: record.state, message: record.message,
      runtime: record.runtime, image: record.image.reference, imageDigest: record.image.digest, limits: record.limits, network: record.network,
      labels: record.labels, createdAtMs: record.createdAtMs, lastUsedAtMs: record.lastUsedAtMs, expiresAtMs: record.expiresAtMs,
      idleMsMax: record.idleMsMax, active,
    }
  }
}
