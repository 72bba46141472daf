/**
 * A stack of undo steps: armed on entry, released on success.
 *
 * I1. Steps run last in first out, each once, all of them even when some fail.
 * I2. `run` is idempotent: a second call gets the same promise.
 * I3. Failures are joined in one `AggregateError`; nothing is swallowed.
 */

type Step = () => unknown

export class Cleanup implements AsyncDisposable {
  #steps: Step[] = []
  #running: Promise<void> | undefined

  /** Arms a step. Runs it at once when the clean-up has already begun, so that a late resource does not leak. */
  add(step: Step): void {
    if (this.#running === undefined) {
      this.#steps.push(step)
      return
    }
    const earlier = this.#running
    const late = this.#runLate(earlier, step)
    this.#running = late
    // The earlier failure was told to whoever ran it; again it must not count as unhandled. `run` tells both.
    earlier.catch(() => late.catch(() => undefined))
  }

  /** Takes over a disposable and returns it. */
  use<T extends AsyncDisposable>(resource: T): T {
    this.add(() => resource[Symbol.asyncDispose]())
    return resource
  }

  /** Forgets every step: the resources now belong to somebody else. Returns them as a new stack. */
  release(): Cleanup {
    const owner = new Cleanup()
    owner.#steps = this.#steps
    this.#steps = []
    return owner
  }

  run(): Promise<void> {
    this.#running ??= this.#runAll()
    return this.#running
  }

  /** A late step runs whatever came before it. */
  async #runLate(earlier: Promise<void>, step: Step): Promise<void> {
    const errors: unknown[] = []
    for (const one of [() => earlier, step]) {
      try {
        await one()
      } catch (error) {
        errors.push(error)
      }
    }
    throwJoined(errors)
  }

  async #runAll(): Promise<void> {
    const errors: unknown[] = []
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step()
      } catch (error) {
        errors.push(error)
      }
    }
    throwJoined(errors)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.run()
  }
}

function throwJoined(errors: readonly unknown[]): void {
  if (errors.length === 1) throw errors[0]
  if (errors.length > 1) throw new AggregateError(errors, 'Several clean-up steps failed.')
}
