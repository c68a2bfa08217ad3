// How many answers are told to a client together. One that goes on asking before it was told is interrupted less often that
// way; one that waits for each answer would only wait longer, and which of them it is can only be seen by trying. Law: what
// is kept is what was measured to be faster than the moment before it and the moment after; whoever waits for us is told at once.

/** Answers that are told together at most. */
const SIZE_MAX = 16
/** Answers over which a size is measured, and how long they may take of a client that is busy. */
const WINDOW = 512
const WINDOW_MS_MAX = 100
/** After so many waits in vain, one after another, it is the client that waits. */
const VAIN_MAX = 6
/** What an answer takes with a larger size has to fall to this share of the lower one of both moments; with a smaller one it may
 * rise to this of the higher. */
const GAIN = 0.94
const LOSS = 1.02
/** Windows between two tries: twice as many after each that came to nothing, and after one that showed a client that waits,
 * which shows soon and costs little. */
const REST_MAX = 32
const REST_OF_WAITING = 8

export class Coalescing {
  readonly #now: () => number
  #size = 1
  /** What is tried instead, or was in the last window; 0 for nothing. */
  #trial = 0
  #isTrying = false
  /** What an answer took in the window of the trial. */
  #trialCost = 0
  #upwards = true
  #rest = 1
  #rested = 0
  /** Milliseconds for an answer, as the last window has shown. */
  #cost = Number.POSITIVE_INFINITY
  #answers = 0
  #vain = 0
  #sinceMs: number

  /** `now`: milliseconds of a clock that never goes back. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
    this.#sinceMs = now()
  }

  /** With so many answers untold: whether the next request is waited for before they are told. */
  holds(untold: number): boolean {
    return untold < (this.#isTrying ? this.#trial : this.#size)
  }

  /** Answers were held; `inTime`: the next request came meanwhile. */
  held(inTime: boolean): void {
    this.#vain = inTime ? 0 : this.#vain + 1
    if (this.#vain >= VAIN_MAX) this.#close(Number.POSITIVE_INFINITY)
  }

  /** So many answers were told in one. */
  told(count: number): void {
    this.#answers += count
    if (this.#answers < WINDOW) return
    const tookMs = this.#now() - this.#sinceMs
    this.#close(tookMs > WINDOW_MS_MAX ? Number.POSITIVE_INFINITY : tookMs / this.#answers)
  }

  /** Infinite is the cost for a client that does not go on asking. */
  #close(cost: number): void {
    if (this.#isTrying) this.#tried(cost)
    else if (cost === Number.POSITIVE_INFINITY) this.#stalled()
    else if (this.#trial > 0) this.#judge(cost)
    else this.#measured(cost)
    this.#answers = 0
    this.#vain = 0
    this.#sinceMs = this.#now()
  }

  #measured(cost: number): void {
    this.#cost = cost
    if (++this.#rested >= this.#rest) this.#try()
  }

  #try(): void {
    if (this.#size === 1) this.#upwards = true
    else if (this.#size === SIZE_MAX) this.#upwards = false
    this.#trial = this.#upwards ? this.#size * 2 : this.#size / 2
    this.#isTrying = true
  }

  /** A window of the trial has ended; the next one is as those before. */
  #tried(cost: number): void {
    this.#isTrying = false
    this.#trialCost = cost
    if (cost === Number.POSITIVE_INFINITY) this.#stalled()
  }

  #judge(after: number): void {
    const bar = this.#upwards ? Math.min(this.#cost, after) * GAIN : Math.max(this.#cost, after) * LOSS
    this.#conclude(this.#trialCost <= bar)
    this.#cost = after
  }

  #conclude(isBetter: boolean): void {
    if (isBetter) this.#size = this.#trial
    else this.#upwards = !this.#upwards
    this.#rest = isBetter ? 1 : Math.min(REST_MAX, this.#rest * 2)
    this.#rested = 0
    this.#trial = 0
  }

  /** The client did not go on asking: not beyond what was tried, or not even so far. */
  #stalled(): void {
    if (this.#trial === 0) this.#size = Math.max(1, this.#size / 2)
    this.#upwards = true
    this.#trial = 0
    this.#rest = REST_OF_WAITING
    this.#rested = 0
  }
}
