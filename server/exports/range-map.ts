// Who has which bytes: sorted, disjoint intervals, each with its owner. Law: they lie in chunks of bounded length, as in a
// RangeSet, so that neither a look nor a change costs more because there are many.
import { countBelow } from './range-set.js'

const CHUNK_INTERVALS_MAX = 512

/** Half-open: [start, end). */
export interface Owned<Owner> {
  readonly start: number
  readonly end: number
  readonly owner: Owner
}

/** What of these intervals lies in [start, end). */
export function within<Owner>(intervals: readonly Owned<Owner>[], start: number, end: number): Owned<Owner>[] {
  const touched = intervals.filter((each) => each.start < end && each.end > start)
  return touched.map((each) => ({ ...each, start: Math.max(start, each.start), end: Math.min(end, each.end) }))
}

export class RangeMap<Owner> {
  /** None of them is empty. */
  #chunks: Owned<Owner>[][] = []
  #count = 0

  /** How many intervals there are. */
  get count(): number {
    return this.#count
  }

  /** The first interval that ends at `end` or behind it: its chunk, and its index there. */
  #placeOf(end: number): [chunk: number, index: number] {
    const chunk = countBelow(this.#chunks.length, (at) => this.#chunks[at]?.at(-1)?.end ?? 0, end)
    const intervals = this.#chunks[chunk] ?? []
    return [chunk, countBelow(intervals.length, (at) => intervals[at]?.end ?? 0, end)]
  }

  /** Whether any byte of [start, end) has an owner that counts. */
  intersects(start: number, end: number, counts: (owner: Owner) => boolean): boolean {
    let [chunk, index] = this.#placeOf(start + 1)
    for (; chunk < this.#chunks.length; chunk++, index = 0) {
      for (const intervals = this.#chunks[chunk] ?? []; index < intervals.length; index++) {
        const interval = intervals[index]
        if (interval === undefined || interval.start >= end) return false
        if (counts(interval.owner)) return true
      }
    }
    return false
  }

  /** Gives [start, end) to `owner`. Returns who had what of it, in order of the bytes. */
  give(start: number, end: number, owner: Owner): Owned<Owner>[] {
    const before = this.#takeOut(start, end)
    const [first, last] = [before[0], before.at(-1)]
    if (first !== undefined && first.start < start) this.#putIn({ ...first, end: start })
    if (start < end) this.#putIn({ start, end, owner })
    if (last !== undefined && last.end > end) this.#putIn({ ...last, start: end })
    return within(before, start, end)
  }

  #takeOut(start: number, end: number): Owned<Owner>[] {
    const taken: Owned<Owner>[] = []
    let [chunk, index] = this.#placeOf(start + 1)
    for (; chunk < this.#chunks.length; index = 0) {
      const intervals = this.#chunks[chunk] ?? []
      let to = index
      while (to < intervals.length && (intervals[to]?.start ?? end) < end) to += 1
      const isWhole = to === intervals.length
      taken.push(...intervals.splice(index, to - index))
      if (intervals.length === 0) this.#chunks.splice(chunk, 1)
      else chunk += 1
      if (!isWhole) break
    }
    this.#count -= taken.length
    return taken
  }

  /** Puts in an interval where nobody has anything. */
  #putIn(interval: Owned<Owner>): void {
    const [chunk, index] = this.#placeOf(interval.end)
    this.#count += 1
    const intervals = this.#chunks[chunk] ?? this.#chunks.at(-1)
    if (intervals === undefined) {
      this.#chunks.push([interval])
      return
    }
    intervals.splice(chunk < this.#chunks.length ? index : intervals.length, 0, interval)
    if (intervals.length <= CHUNK_INTERVALS_MAX) return
    const upper = intervals.splice(intervals.length >>> 1)
    this.#chunks.splice(Math.min(chunk, this.#chunks.length - 1) + 1, 0, upper)
  }

  /** Takes out what `owner` has of [start, end), and returns it. */
  take(start: number, end: number, owner: Owner): Owned<Owner>[] {
    const found = this.#ofOwner(start, end, owner)
    for (const interval of found) this.#takeOut(interval.start, interval.end)
    return found
  }

  /** Gives [start, end), where nobody has anything, to `owner`: one interval with what that one has beside it. */
  add(start: number, end: number, owner: Owner): void {
    let [from, to] = [start, end]
    for (const beside of this.#takeOut(start - 1, end + 1)) {
      if (beside.owner !== owner) this.#putIn(beside)
      else if (beside.end === start) from = beside.start
      else to = beside.end
    }
    this.#putIn({ start: from, end: to, owner })
  }

  #ofOwner(start: number, end: number, owner: Owner): Owned<Owner>[] {
    const found: Owned<Owner>[] = []
    let [chunk, index] = this.#placeOf(start + 1)
    for (; chunk < this.#chunks.length; chunk++, index = 0) {
      for (const intervals = this.#chunks[chunk] ?? []; index < intervals.length; index++) {
        const interval = intervals[index]
        if (interval === undefined || interval.start >= end) return found
        if (interval.owner === owner) found.push(interval)
      }
    }
    return found
  }

  /** Takes out what belongs to owners that do not count any more. */
  keep(counts: (owner: Owner) => boolean): void {
    const chunks = this.#chunks.map((intervals) => intervals.filter(({ owner }) => counts(owner)))
    this.#chunks = chunks.filter(({ length }) => length > 0)
    this.#count = this.#chunks.reduce((sum, { length }) => sum + length, 0)
  }
}
