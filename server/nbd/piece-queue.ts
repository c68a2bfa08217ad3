// Pieces of one WRITE that wait for storage. Law: they go one after another, in order; what cannot go on here, since the
// export is frozen, is put aside, and keeps those behind it back.
import type { Export } from '../exports/export.js'
import { copyOf, giveBuffer, type OwnedPayload } from './buffer-pool.js'
import type { PayloadBudget } from './payload-budget.js'

export interface PieceQueueOptions {
  readonly served: Export
  readonly budget: PayloadBudget
  /** The spec's number of the request. */
  readonly command: number
  /** Gives a piece to storage; false when it has to be put aside. */
  readonly write: (piece: Uint8Array, offset: number) => Promise<boolean>
  /** A piece has left. */
  readonly left: () => void
}

export class PieceQueue {
  readonly #options: PieceQueueOptions
  #length = 0
  #last: Promise<void> = Promise.resolve()
  #aside: Uint8Array[] = []

  constructor(options: PieceQueueOptions) {
    this.#options = options
  }

  get length(): number {
    return this.#length
  }

  add({ bytes, pooled }: OwnedPayload, offset: number): void {
    const { served, budget, command, left } = this.#options
    this.#length += 1
    budget.take(bytes.length)
    const waiting = served.waiting.enter(command)
    const before = this.#last
    const write = async () => {
      await before
      const isDone = this.#aside.length === 0 && (await this.#options.write(bytes, offset))
      if (!isDone) this.#aside.push(copyOf(bytes, 0, bytes.length))
      served.waiting.leave(waiting)
      budget.give(bytes.length)
      if (pooled !== undefined) giveBuffer(pooled)
      this.#length -= 1
      left()
    }
    this.#last = write()
  }

  /** Calls when all that is in it now has left. */
  whenEmpty(act: () => void): void {
    if (this.#length === 0) act()
    else this.#last = this.#last.then(act)
  }

  /** What was put aside, in order; it is the caller's. */
  takeAside(): Uint8Array[] {
    const pieces = this.#aside
    this.#aside = []
    return pieces
  }
}
