// A set of byte ranges as sorted, disjoint intervals: the one structure for suspect, unflushed and changed ranges.

/** Half-open: [start, end), in bytes of the export. */
export interface Range {
  readonly start: number
  readonly end: number
}

export class RangeSet {
  readonly #starts: number[] = []
  readonly #ends: number[] = []

  /** How many intervals there are; 0 costs nothing to ask. */
  get count(): number {
    return this.#starts.length
  }

  /** Bytes in all intervals together. */
  get bytes(): number {
    return this.#starts.reduce((sum, start, index) => sum + (this.#ends[index] ?? start) - start, 0)
  }

  /** Index of the first interval that ends after `at`. */
  #firstEndingAfter(at: number): number {
    let low = 0
    let high = this.#ends.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#ends[middle] ?? 0) > at) high = middle
      else low = middle + 1
    }
    return low
  }

  /** Whether any byte of [start, end) is in the set. */
  intersects(start: number, end: number): boolean {
    return this.firstWithin(start, end) !== undefined
  }

  /** The first byte of [start, end) that is in the set. */
  firstWithin(start: number, end: number): number | undefined {
    if (this.#starts.length === 0 || start >= end) return undefined
    const found = this.#starts[this.#firstEndingAfter(start)]
    return found === undefined || found >= end ? undefined : Math.max(found, start)
  }

  /** The parts of the set that lie in [start, end). */
  *within(start: number, end: number): IterableIterator<Range> {
    for (let index = this.#firstEndingAfter(start); (this.#starts[index] ?? end) < end; index++) {
      yield { start: Math.max(start, this.#starts[index] ?? end), end: Math.min(end, this.#ends[index] ?? end) }
    }
  }

  /** Adds [start, end); touching intervals become one. */
  add(start: number, end: number): void {
    if (start >= end) return
    let first = this.#firstEndingAfter(start)
    if (first > 0 && this.#ends[first - 1] === start) first -= 1
    let last = first
    let from = start
    let to = end
    while (last < this.#starts.length && (this.#starts[last] ?? 0) <= end) {
      from = Math.min(from, this.#starts[last] ?? from)
      to = Math.max(to, this.#ends[last] ?? to)
      last += 1
    }
    this.#starts.splice(first, last - first, from)
    this.#ends.splice(first, last - first, to)
  }

  /** Takes [start, end) out, exactly. */
  remove(start: number, end: number): void {
    if (start >= end) return
    const first = this.#firstEndingAfter(start)
    let last = first
    const starts: number[] = []
    const ends: number[] = []
    while (last < this.#starts.length && (this.#starts[last] ?? end) < end) {
      const from = this.#starts[last] ?? start
      const to = this.#ends[last] ?? end
      if (from < start) {
        starts.push(from)
        ends.push(start)
      }
      if (to > end) {
        starts.push(end)
        ends.push(to)
      }
      last += 1
    }
    this.#starts.splice(first, last - first, ...starts)
    this.#ends.splice(first, last - first, ...ends)
  }

  clear(): void {
    this.#starts.length = 0
    this.#ends.length = 0
  }

  *[Symbol.iterator](): IterableIterator<Range> {
    for (let index = 0; index < this.#starts.length; index++) {
      yield { start: this.#starts[index] ?? 0, end: this.#ends[index] ?? 0 }
    }
  }
}
