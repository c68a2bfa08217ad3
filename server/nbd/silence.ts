// How long a client has sent nothing of what it announced. Law: what lies unread in its socket, since this thread was busy, is
// no silence: it is read before anybody is called silent.

export class Silence {
  readonly #timer: NodeJS.Timeout
  #soon: NodeJS.Immediate | undefined

  /** `silent` is called when `touch` was not for so long, and then not again before the next `touch`. */
  constructor(timeoutMs: number, silent: () => void) {
    this.#timer = setTimeout(() => {
      // Sockets are read between timers and immediates.
      this.#soon = setImmediate(silent)
    }, timeoutMs)
  }

  touch(): void {
    this.#timer.refresh()
    if (this.#soon !== undefined) clearImmediate(this.#soon)
    this.#soon = undefined
  }

  end(): void {
    clearTimeout(this.#timer)
    if (this.#soon !== undefined) clearImmediate(this.#soon)
  }
}
