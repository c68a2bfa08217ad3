// Whether it is worth a moment to wait for a client's next request in place. Law: nobody loses by it: only one who is alone
// in the thread is waited for, and who makes us wait in vain is soon not waited for any more, but for one try in so many.

/** Nanoseconds. */
const WAIT_NS = 20_000
/** Vain waits in a row after which it is tried less often, and how often then. */
const VAIN_MAX = 8
const TRY_EACH = 64

/** Clients of this thread. */
let clients = 0

export class Patience {
  #vain = 0
  #skipped = 0

  constructor() {
    clients += 1
  }

  /** The client has gone. */
  end(): void {
    clients -= 1
  }

  /** How long to wait now; 0 for not at all. */
  get waitNs(): number {
    if (clients > 1) return 0
    if (this.#vain < VAIN_MAX) return WAIT_NS
    this.#skipped = (this.#skipped + 1) % TRY_EACH
    return this.#skipped === 0 ? WAIT_NS : 0
  }

  /** A wait has ended; `inTime`: the next request came. */
  waited(inTime: boolean): void {
    this.#vain = inTime ? 0 : this.#vain + 1
  }
}
