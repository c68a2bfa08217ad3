// How long one connection's requests took, added to their export's histograms. Law: the clock is read twice for a
// batch, never for each of its requests: what is told together counts from when the first of it was taken.
import { COMMANDS, commandIndex } from 'nbd-protocol'
import type { Outcome } from '../../backends/index.js'
import { type Counters, count, latencyAt } from './counters.js'
import { bucketOf, LATENCY_SUM_AT, OK, OUTCOMES, type OutcomeClass, outcomeClass, REFUSED } from './latency-buckets.js'

const MS_PER_SECOND = 1000
const PLACES = COMMANDS * OUTCOMES.length

export class Latency {
  readonly #counters: Counters
  /** Requests of this batch by command and outcome, and the first `touched` of `places` that are not 0. */
  readonly #batch = new Uint32Array(PLACES)
  readonly #places = new Uint8Array(PLACES)
  #touched = 0
  /** Requests of batches whose replies were not handed over. */
  untold = 0
  /** When the batch that is being served arrived, on the monotonic clock. */
  sinceMs = 0
  /** When the first of those did whose replies were not handed over. */
  #firstMs = 0

  constructor(counters: Counters) {
    this.#counters = counters
  }

  /** A batch has arrived and is about to be served. */
  arrived(): void {
    this.sinceMs = performance.now()
    if (this.untold === 0) this.#firstMs = this.sinceMs
  }

  /** A request of this batch succeeded within it. */
  served(command: number): void {
    this.#note(command, OK)
  }

  refused(command: number): void {
    this.#note(command, REFUSED)
  }

  /** A request of this batch was answered with an error within it. */
  failed(command: number, outcome: Outcome): void {
    this.#note(command, outcomeClass(outcome))
  }

  #note(command: number, outcome: OutcomeClass): void {
    const place = commandIndex(command) * OUTCOMES.length + outcome
    const before = this.#batch[place] ?? 0
    if (before === 0) this.#places[this.#touched++] = place
    this.#batch[place] = before + 1
    this.untold += 1
  }

  /** The replies were handed to the socket, those of former batches among them if they were kept back. */
  handedOver(): void {
    if (this.#touched === 0) return
    const seconds = (performance.now() - this.#firstMs) / MS_PER_SECOND
    for (let index = 0; index < this.#touched; index++) {
      const place = this.#places[index] ?? 0
      this.#add(place, seconds, this.#batch[place] ?? 0)
      this.#batch[place] = 0
    }
    this.#touched = 0
    this.untold = 0
  }

  /** A request that could not be answered in its batch, which arrived at `sinceMs`, is answered now. */
  answered(command: number, outcome: Outcome, sinceMs: number): void {
    const seconds = (performance.now() - sinceMs) / MS_PER_SECOND
    this.#add(commandIndex(command) * OUTCOMES.length + outcomeClass(outcome), seconds, 1)
  }

  #add(place: number, seconds: number, requests: number): void {
    const at = latencyAt(place)
    count(this.#counters, at + bucketOf(seconds), requests)
    count(this.#counters, at + LATENCY_SUM_AT, seconds * requests)
  }
}
