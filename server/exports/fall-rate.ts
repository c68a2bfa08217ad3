// How fast free space falls, smoothed: what a burst or a clean-up does counts less from minute to minute.

/** What lies this far back counts about a third. */
const MEMORY_MS = 60_000
/** Samples closer together than this are left out: file systems free and take space in steps. */
const STEP_MS = 500
/** Of a full memory: what ten seconds make up. Fewer say more of a burst than of the file system. */
const WEIGHT_MIN = 0.15
/** Bytes per second below which nothing falls that anybody would wait for. */
const STILL = 1

export class FallRate {
  #last: { readonly free: number; readonly at: number } | undefined
  #sum = 0
  /** How much of a full memory the samples make up, from 0 to 1: the first minute is not taken for quiet. */
  #weight = 0

  /** `at` in ms of a monotonic clock. */
  sample(free: number, at: number): void {
    const last = this.#last
    if (last === undefined) this.#last = { free, at }
    if (last === undefined || at - last.at < STEP_MS) return
    this.#last = { free, at }
    const kept = Math.exp((last.at - at) / MEMORY_MS)
    const rate = ((last.free - free) * 1000) / (at - last.at)
    this.#sum = this.#sum * kept + rate * (1 - kept)
    this.#weight = this.#weight * kept + 1 - kept
  }

  /** The file system became another one: what was seen before says nothing. */
  forget(): void {
    this.#last = undefined
    this.#sum = 0
    this.#weight = 0
  }

  /** Bytes; negative while free space grows. */
  get perSecond(): number {
    return this.#weight === 0 ? 0 : this.#sum / this.#weight
  }

  /** Infinity while free space does not fall, and until there are samples enough to say so. */
  secondsUntil(free: number): number {
    if (free <= 0) return 0
    if (this.#weight < WEIGHT_MIN) return Number.POSITIVE_INFINITY
    return this.perSecond < STILL ? Number.POSITIVE_INFINITY : free / this.perSecond
  }
}
