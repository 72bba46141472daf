/**
 * Which runtime runs a request, and why.
 * A runtime asked for by name is used or refused with its reason; it is never replaced by another.
 */
import {
  FaasError, ISOLATION_CLASSES, toFaasError, type Clock, type IsolationClass, type LogSink, type NetworkPolicy, type ProbeReport,
  type RuntimeChoice, type RuntimeDecision, type RuntimeDriver, type RuntimeFeatures, type RuntimeName,
} from '@faas-platform/core'
import type { RuntimeStatus } from './types.js'

/** What a request needs of a runtime. */
export interface RuntimeNeeds {
  readonly runtime: RuntimeChoice
  readonly isolationFloor: IsolationClass
  readonly network: Pick<NetworkPolicy, 'mode'>
  /** Features its mode needs. */
  readonly features: readonly ('pause' | 'checkpoint' | 'retain' | 'tty' | 'resizeLimits')[]
}

export interface Chosen {
  readonly driver: RuntimeDriver
  readonly decision: RuntimeDecision
}

export interface RuntimePolicy {
  readonly runtimePreference: readonly RuntimeName[]
  readonly refuseVulnerable: boolean
}

interface Known {
  readonly driver: RuntimeDriver
  probe: ProbeReport
  probedAtMs: number
}

/** A runtime that was down may have come up; it is looked at again at most this often. */
const REPROBE_MS = 10_000

export class Runtimes {
  readonly #known = new Map<RuntimeName, Known>()
  readonly #decisions = new Map<string, Chosen>()
  #reprobing: Promise<void> | undefined

  constructor(drivers: readonly RuntimeDriver[], private readonly policy: RuntimePolicy, private readonly clock: Clock, private readonly log: LogSink) {
    for (const driver of drivers) {
      if (this.#known.has(driver.name)) throw new FaasError('config/invalid', { message: `Two drivers are named ${driver.name}.` })
      this.#known.set(driver.name, { driver, probe: NOT_PROBED, probedAtMs: -Infinity })
    }
  }

  get drivers(): readonly RuntimeDriver[] {
    return [...this.#known.values()].map((known) => known.driver)
  }

  async probe(signal: AbortSignal): Promise<readonly RuntimeStatus[]> {
    await Promise.all([...this.#known.values()].map((known) => this.#probeOne(known, signal)))
    this.#decisions.clear()
    return this.statuses()
  }

  statuses(): readonly RuntimeStatus[] {
    return [...this.#known.values()].map(({ driver, probe, probedAtMs }) => ({
      name: driver.name, isolation: driver.features.isolation, features: driver.features, probe, probedAtMs,
    }))
  }

  driver(name: RuntimeName): RuntimeDriver | undefined {
    return this.#known.get(name)?.driver
  }

  /** @throws FaasError `runtime/unknown`, `runtime/unavailable`, `runtime/unsupported`, `runtime/vulnerable`, `runtime/none-available` */
  choose(needs: RuntimeNeeds): Chosen {
    const key = `${needs.runtime} ${needs.isolationFloor} ${needs.network.mode} ${needs.features.join()}`
    const earlier = this.#decisions.get(key)
    if (earlier !== undefined) return earlier
    const chosen = needs.runtime === 'auto' ? this.#auto(needs) : this.#named(needs.runtime, needs)
    this.#decisions.set(key, chosen)
    return chosen
  }

  /** Looks again at runtimes that were not usable, when the last look is old enough. True when it looked. */
  async reprobe(signal: AbortSignal): Promise<boolean> {
    const stale = [...this.#known.values()].filter((known) => !known.probe.usable && this.clock.monotonicMs() - known.probedAtMs >= REPROBE_MS)
    if (stale.length === 0) return false
    this.#reprobing ??= Promise.all(stale.map((known) => this.#probeOne(known, signal))).then(() => {
      this.#decisions.clear()
    }).finally(() => {
      this.#reprobing = undefined
    })
    await this.#reprobing
    return true
  }

  async #probeOne(known: Known, signal: AbortSignal): Promise<void> {
    known.probe = await probeDriver(known.driver, this.log, signal)
    known.probedAtMs = this.clock.monotonicMs()
  }

  #named(name: RuntimeName, needs: RuntimeNeeds): Chosen {
    const known = this.#known.get(name)
    if (known === undefined) {
      throw new FaasError('runtime/unavailable', {
        message: `The runtime ${name} is not part of this gateway.`,
        hint: `Available: ${[...this.#known.keys()].join(', ') || 'none'}.`,
        details: { runtime: name },
      })
    }
    const obstacle = this.#obstacle(known, needs)
    if (obstacle !== null) throw obstacle
    return { driver: known.driver, decision: { runtime: name, isolation: known.driver.features.isolation, reason: `${name} was asked for by name and is usable.` } }
  }

  #auto(needs: RuntimeNeeds): Chosen {
    const passedOver: string[] = []
    for (const name of this.policy.runtimePreference) {
      const known = this.#known.get(name)
      if (known === undefined) continue
      const obstacle = this.#obstacle(known, needs)
      if (obstacle !== null) {
        passedOver.push(`${name}: ${obstacle.message}`)
        continue
      }
      const why = passedOver.length === 0 ? 'it is first in the order of preference' : `those before it can not (${passedOver.join(' ')})`
      return { driver: known.driver, decision: { runtime: name, isolation: known.driver.features.isolation, reason: `${name} was chosen: ${why}.` } }
    }
    throw new FaasError('runtime/none-available', {
      message: 'No runtime on this host satisfies the request.',
      hint: passedOver.length === 0 ? 'No runtime is configured for automatic choice.' : passedOver.join(' '),
      details: { isolationFloor: needs.isolationFloor, network: needs.network.mode },
    })
  }

  #obstacle({ driver, probe }: Known, needs: RuntimeNeeds): FaasError | null {
    const { name, features } = driver
    if (!probe.usable) return new FaasError('runtime/unavailable', { message: `${name} can not be used here: ${probe.reason}`, hint: probe.hint, details: { runtime: name } })
    const first = probe.vulnerabilities[0]
    if (this.policy.refuseVulnerable && first !== undefined) {
      return new FaasError('runtime/vulnerable', {
        message: `${name} ${probe.version ?? ''} is open to ${probe.vulnerabilities.map((entry) => entry.id).join(', ')}.`,
        hint: `Install ${name} ${first.fixedIn} or later.`,
        details: { runtime: name, vulnerabilities: probe.vulnerabilities },
      })
    }
    if (ISOLATION_CLASSES.indexOf(features.isolation) < ISOLATION_CLASSES.indexOf(needs.isolationFloor)) {
      return unsupported(name, `${name} isolates by ${features.isolation}, which is weaker than the ${needs.isolationFloor} asked for.`)
    }
    if (!features.network.includes(needs.network.mode)) return unsupported(name, `${name} has no network mode ${needs.network.mode} here.`)
    const missing = needs.features.find((feature) => !hasFeature(features, feature))
    return missing === undefined ? null : unsupported(name, `${name} does not have the feature ${missing}.`)
  }
}

const NOT_PROBED: ProbeReport = { usable: false, reason: 'It was not probed yet.', version: null, vulnerabilities: [], facts: [] }

function hasFeature(features: RuntimeFeatures, feature: RuntimeNeeds['features'][number]): boolean {
  return features[feature]
}

function unsupported(runtime: RuntimeName, message: string): FaasError {
  return new FaasError('runtime/unsupported', { message, hint: 'Use `auto`, or a runtime from GET /api/v1/runtimes that has it.', details: { runtime } })
}

/** A probe that throws is a broken probe: the runtime counts as not usable, and the cause is logged for people. Never rejects. */
export async function probeDriver(driver: RuntimeDriver, log: LogSink, signal: AbortSignal): Promise<ProbeReport> {
  try {
    return await driver.probe(signal)
  } catch (error) {
    log.error({ runtime: driver.name, err: error }, 'probe failed')
    return { ...NOT_PROBED, reason: `Its probe failed: ${toFaasError(error).message}`, hint: 'See the log for the cause.' }
  }
}
