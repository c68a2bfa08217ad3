// When writes are not tried in the calling thread: while an operation in the kernel holds the inode's lock for long, and
// for a while after a write that stalled there.
import type { Outcome } from '../outcome.js'

/** After an inline write that stalled, writes go to the pool for this long. */
const STAND_BACK_MS = 250

export class StandBack {
  #lockHolders = 0
  #until = 0

  /** Operations in the kernel keep the inode's lock. */
  get locked(): boolean {
    return this.#lockHolders !== 0
  }

  /** Nothing speaks against writing in this thread. */
  get isOver(): boolean {
    if (this.#lockHolders !== 0) return false
    if (this.#until === 0) return true
    if (performance.now() < this.#until) return false
    this.#until = 0
    return true
  }

  /** A write in this thread took suspiciously long. */
  stalled(): void {
    this.#until = performance.now() + STAND_BACK_MS
  }

  /** Runs what holds the inode's lock for long. */
  async during(run: () => Promise<Outcome>): Promise<Outcome> {
    this.#lockHolders += 1
    try {
      return await run()
    } finally {
      this.#lockHolders -= 1
    }
  }
}
