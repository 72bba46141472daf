/** A promise settled from outside. A rejection that nobody awaits yet is not "unhandled": the owner may ask later. */
export class Deferred<T> {
  readonly promise: Promise<T>
  settled = false
  #resolve!: (value: T) => void
  #reject!: (error: unknown) => void

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.promise.catch(() => undefined)
  }

  resolve(value: T): void {
    this.settled = true
    this.#resolve(value)
  }

  reject(error: unknown): void {
    this.settled = true
    this.#reject(error)
  }
}
