/** The part of Node's EventEmitter that clients of this SDK use, so that it also runs in browsers. */

type Listener<A extends readonly unknown[]> = (...args: A) => void

export class Emitter<Events extends Record<keyof Events, readonly unknown[]>> {
  readonly #listeners = new Map<keyof Events, { readonly listener: Listener<never>; readonly once: boolean }[]>()

  on<E extends keyof Events>(event: E, listener: Listener<Events[E]>): this {
    return this.#add(event, listener, false)
  }

  once<E extends keyof Events>(event: E, listener: Listener<Events[E]>): this {
    return this.#add(event, listener, true)
  }

  off<E extends keyof Events>(event: E, listener: Listener<Events[E]>): this {
    const kept = (this.#listeners.get(event) ?? []).filter((entry) => entry.listener !== listener)
    this.#listeners.set(event, kept)
    return this
  }

  addListener<E extends keyof Events>(event: E, listener: Listener<Events[E]>): this {
    return this.on(event, listener)
  }

  removeListener<E extends keyof Events>(event: E, listener: Listener<Events[E]>): this {
    return this.off(event, listener)
  }

  removeAllListeners(event?: keyof Events): this {
    if (event === undefined) this.#listeners.clear()
    else this.#listeners.delete(event)
    return this
  }

  listenerCount(event: keyof Events): number {
    return this.#listeners.get(event)?.length ?? 0
  }

  listeners<E extends keyof Events>(event: E): Listener<Events[E]>[] {
    return (this.#listeners.get(event) ?? []).map((entry) => entry.listener as Listener<Events[E]>)
  }

  eventNames(): (keyof Events)[] {
    return [...this.#listeners].filter(([, entries]) => entries.length > 0).map(([event]) => event)
  }

  /** @returns whether anybody listened. */
  emit<E extends keyof Events>(event: E, ...args: Events[E]): boolean {
    const entries = this.#listeners.get(event) ?? []
    if (entries.some((entry) => entry.once)) {
      this.#listeners.set(event, entries.filter((entry) => !entry.once))
    }
    for (const entry of entries) (entry.listener as Listener<Events[E]>)(...args)
    return entries.length > 0
  }

  #add<E extends keyof Events>(event: E, listener: Listener<Events[E]>, once: boolean): this {
    const entries = this.#listeners.get(event) ?? []
    this.#listeners.set(event, [...entries, { listener: listener as Listener<never>, once }])
    return this
  }
}
