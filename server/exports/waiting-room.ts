// Requests that wait for something outside of this server, in order of arrival. Law: whoever enters is woken once.

export class WaitingRoom<Wake> {
  /** Who waits, with the question whether anybody still waits for them. */
  readonly #waiting = new Map<(wake: Wake) => void, () => boolean>()

  /** `until`: how long, in ms, and what the wait ends with then; without it there is no such end. */
  enter(wanted: () => boolean, until?: { readonly ms: number; readonly wake: Wake }): Promise<Wake> {
    return new Promise((settle) => {
      const wake = (why: Wake) => {
        clearTimeout(timer)
        this.#waiting.delete(wake)
        settle(why)
      }
      const timer = until && setTimeout(() => wake(until.wake), until.ms)
      this.#waiting.set(wake, wanted)
    })
  }

  get size(): number {
    return this.#waiting.size
  }

  wakeFirst(wake: Wake): void {
    const [first] = this.#waiting.keys()
    first?.(wake)
  }

  wakeAll(wake: Wake): void {
    for (const each of [...this.#waiting.keys()]) each(wake)
  }

  /** Those whose client has gone: what was sent again elsewhere stands behind them. */
  wakeUnwanted(wake: Wake): void {
    for (const [each, wanted] of [...this.#waiting]) if (!wanted()) each(wake)
  }
}
