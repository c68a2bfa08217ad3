// A set of byte ranges as sorted, disjoint intervals: the one structure for suspect, unflushed and changed ranges. Law: they
// lie in chunks of bounded length, so that one change among 100,000 intervals moves hundreds of numbers and not all of them.

/** Half-open: [start, end), in bytes of the export. */
export interface Range {
  readonly start: number
  readonly end: number
}

const CHUNK_INTERVALS_MAX = 512

/** Intervals that follow each other; never empty. */
interface Chunk {
  readonly starts: number[]
  readonly ends: number[]
}

/** A place between intervals; behind the last one, `chunk` is how many chunks there are. */
interface Place {
  readonly chunk: number
  readonly index: number
}

/** How many of the sorted numbers are below `limit`. */
export function countBelow(length: number, numberAt: (index: number) => number, limit: number): number {
  let low = 0
  let high = length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (numberAt(middle) < limit) low = middle + 1
    else high = middle
  }
  return low
}

export class RangeSet {
  readonly #chunks: Chunk[] = []
  #count = 0
  #bytes = 0

  /** How many intervals there are. */
  get count(): number {
    return this.#count
  }

  /** Bytes in all intervals together. Each write to an export with suspect ranges publishes them. */
  get bytes(): number {
    return this.#bytes
  }

  /** The first interval that ends at `end` or behind it. */
  #placeOf(end: number): Place {
    const chunk = countBelow(this.#chunks.length, (at) => this.#chunks[at]?.ends.at(-1) ?? 0, end)
    const ends = this.#chunks[chunk]?.ends ?? []
    return { chunk, index: countBelow(ends.length, (at) => ends[at] ?? 0, end) }
  }

  /** Takes out the intervals from `place` on that start before `limit`, and hands them back. */
  #takeOut({ chunk, index }: Place, limit: number): Range[] {
    const taken: Range[] = []
    for (let at = chunk, from = index; at < this.#chunks.length; from = 0) {
      const { starts, ends } = this.#chunks[at] ?? { starts: [], ends: [] }
      let to = from
      for (; (starts[to] ?? limit) < limit; to++) taken.push({ start: starts[to] ?? 0, end: ends[to] ?? 0 })
      const isWhole = to === starts.length
      starts.splice(from, to - from)
      ends.splice(from, to - from)
      if (starts.length === 0) this.#chunks.splice(at, 1)
      else at += 1
      if (!isWhole) break
    }
    this.#count -= taken.length
    for (const { start, end } of taken) this.#bytes -= end - start
    return taken
  }

  /** Puts in an interval that touches no other. */
  #putIn(start: number, end: number): void {
    const place = this.#placeOf(end)
    if (this.#chunks.length === 0) this.#chunks.push({ starts: [], ends: [] })
    const chunk = Math.min(place.chunk, this.#chunks.length - 1)
    const { starts, ends } = this.#chunks[chunk] ?? { starts: [], ends: [] }
    const index = chunk === place.chunk ? place.index : starts.length
    starts.splice(index, 0, start)
    ends.splice(index, 0, end)
    this.#count += 1
    this.#bytes += end - start
    if (starts.length <= CHUNK_INTERVALS_MAX) return
    const half = starts.length >>> 1
    this.#chunks.splice(chunk + 1, 0, { starts: starts.splice(half), ends: ends.splice(half) })
  }

  /** Whether any byte of [start, end) is in the set. */
  intersects(start: number, end: number): boolean {
    return this.firstWithin(start, end) !== undefined
  }

  /** The first byte of [start, end) that is in the set. */
  firstWithin(start: number, end: number): number | undefined {
    if (this.#count === 0 || start >= end) return undefined
    const { chunk, index } = this.#placeOf(start + 1)
    const found = this.#chunks[chunk]?.starts[index]
    return found === undefined || found >= end ? undefined : Math.max(found, start)
  }

  /** The parts of the set that lie in [start, end). */
  *within(start: number, end: number): IterableIterator<Range> {
    const place = this.#placeOf(start + 1)
    for (let chunk = place.chunk; chunk < this.#chunks.length; chunk++) {
      const { starts = [], ends = [] } = this.#chunks[chunk] ?? {}
      for (let index = chunk === place.chunk ? place.index : 0; index < starts.length; index++) {
        const from = starts[index] ?? end
        if (from >= end) return
        yield { start: Math.max(start, from), end: Math.min(end, ends[index] ?? end) }
      }
    }
  }

  /** Adds [start, end); touching intervals become one. */
  add(start: number, end: number): void {
    if (start >= end) return
    const joined = this.#takeOut(this.#placeOf(start), end + 1)
    this.#putIn(Math.min(start, joined[0]?.start ?? start), Math.max(end, joined.at(-1)?.end ?? end))
  }

  /** Takes [start, end) out, exactly. */
  remove(start: number, end: number): void {
    if (start >= end) return
    for (const cut of this.#takeOut(this.#placeOf(start + 1), end)) {
      if (cut.start < start) this.#putIn(cut.start, start)
      if (cut.end > end) this.#putIn(end, cut.end)
    }
  }

  clear(): void {
    this.#chunks.length = 0
    this.#count = 0
    this.#bytes = 0
  }

  *[Symbol.iterator](): IterableIterator<Range> {
    for (const { starts, ends } of this.#chunks) {
      for (let index = 0; index < starts.length; index++) yield { start: starts[index] ?? 0, end: ends[index] ?? 0 }
    }
  }
}
