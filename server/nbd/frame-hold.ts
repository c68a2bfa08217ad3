// What a large frame takes of the budget while it is put together. Law: it counts from its header until nobody needs it or
// another counts it; a client that stops in the middle of one, while others wait for room, does not keep it.
import type { PayloadBudget } from './payload-budget.js'
import { Silence } from './silence.js'

export class FrameHold {
  readonly #budget: PayloadBudget
  readonly #bytes: number
  readonly #silence: Silence

  /** `stalled` is called when others wait for room and `touch` was not called for so long. */
  constructor(budget: PayloadBudget, bytes: number, silentMs: number, stalled: () => void) {
    this.#budget = budget
    this.#bytes = bytes
    budget.take(bytes)
    this.#silence = new Silence(silentMs, () => {
      if (budget.isWaitedFor) stalled()
      else this.touch()
    })
  }

  /** More of it has come. */
  touch(): void {
    this.#silence.touch()
  }

  /** It has come whole. */
  complete(): void {
    this.#silence.end()
  }

  leave(): void {
    this.#silence.end()
    this.#budget.give(this.#bytes)
  }
}
