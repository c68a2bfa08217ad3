// When the driver of a ring is told of its answers, and its next requests are waited for. Law: answers are held for nothing but
// the next entry of the same ring, and no longer than the queue's turn lasts.
import type { VhostQueue } from '../../backends/index.js'
import { Coalescing } from '../exports/coalescing.js'
import { HOLD_NS, type Patience } from '../exports/patience.js'
import type { RequestRunner } from '../exports/request-runner.js'

/** Requests that come at once, before which answers that were held are told. */
const HELD_ENTRIES_MAX = 4

export class Telling {
  readonly #queue: VhostQueue
  readonly #runner: RequestRunner
  readonly #patience: Patience
  readonly #coalescing = new Coalescing()
  #scheduled = false
  #ended = false

  constructor(queue: VhostQueue, runner: RequestRunner, patience: Patience) {
    this.#queue = queue
    this.#runner = runner
    this.#patience = patience
  }

  /** So many requests of this ring came, and are about to be served. */
  begin(entries: number): void {
    // What was answered before is not to wait for all of them.
    if (entries > HELD_ENTRIES_MAX && this.#runner.latency.untold > 0) this.now()
    this.#runner.beginBatch()
    this.#patience.came(this.#runner.latency.sinceMs)
  }

  /** Within the queue's `requests`, when all are answered: whether more has come while answers were held for it. */
  holds(): boolean {
    const { untold } = this.#runner.latency
    const mayHold = untold > 0 && !this.#scheduled && this.#patience.isAlone
    if (!mayHold || !this.#coalescing.holds(untold)) return false
    const more = this.#queue.hold(HOLD_NS)
    this.#coalescing.held(more)
    return more
  }

  /** The same when all were told: who asks for one thing at a time asks again in a moment, sooner than a kick would wake us. */
  linger(): void {
    const { waitNs } = this.#patience
    if (waitNs > 0) this.#patience.waited(this.#queue.await(waitNs))
  }

  /** Tells of everything that is answered. */
  now(): void {
    const { untold } = this.#runner.latency
    this.#runner.endBatch()
    if (!this.#ended) this.#queue.notify()
    this.#coalescing.told(untold)
  }

  /** Answers that come outside of the queue's turns are told together at the end of the event loop's. */
  soon(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.now()
    })
  }

  /** The queue is not touched any more. */
  end(): void {
    if (!this.#ended) this.#runner.endBatch()
    this.#ended = true
  }
}
