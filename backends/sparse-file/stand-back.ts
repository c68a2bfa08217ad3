// When writes are not tried in the calling thread: while an operation in the kernel may hold the inode's lock for long, and
// for a while after a write that stalled there. Law: what may be waited for in the thread is short, by the bytes it is about.
import { STALLED } from '../native/file-io.js'
import type { Outcome } from '../outcome.js'

/** After an inline write that stalled, writes go to the pool for this long. */
export const STAND_BACK_MS = 250

/** Zeroing or punching no more than this ends soon: 256 blocks of 4 KiB cannot be more extents than that. */
const SHORT_BYTES_MAX = 1 << 20

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

  /** What was done in this thread, without the word that it took suspiciously long. */
  heed(outcome: Outcome): Outcome {
    if (outcome < 0 || (outcome & STALLED) === 0) return outcome
    this.#until = performance.now() + STAND_BACK_MS
    return outcome & ~STALLED
  }

  /** Runs what holds the inode's lock for long: a change of `length` bytes, or one that reads before it writes. */
  async during(run: () => Promise<Outcome>, length = Number.MAX_SAFE_INTEGER): Promise<Outcome> {
    if (length <= SHORT_BYTES_MAX) return run()
    this.#lockHolders += 1
    try {
      return await run()
    } finally {
      this.#lockHolders -= 1
    }
  }
}
