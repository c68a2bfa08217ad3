// Which pages of a disk are marked, as bits: setting one costs the hot path a few nanoseconds, whatever the pattern.
// Law: a mark covers at least the bytes that were given; it is rounded outwards to pages, and past the bound on memory
// to whole leaves.
import type { Range } from './range-set.js'

const PAGE_BYTES = 4096
const PAGES_PER_LEAF = 32_768
/** Bytes of the disk behind one leaf: 128 MiB, for 4 KiB of memory. */
export const LEAF_BYTES = PAGE_BYTES * PAGES_PER_LEAF
const WORDS_PER_LEAF = PAGES_PER_LEAF / 32
/** Leaves kept page by page (16 MiB of memory); further ones are marked whole. */
export const LEAVES_MAX = 4096

/** A leaf's bits, or 'all' for one that is marked whole. */
type Leaf = Uint32Array | 'all'

export class PageMarks {
  readonly #leaves = new Map<number, Leaf>()
  /** The leaf that was marked last: most writes are neighbours of the one before. */
  #lastIndex = -1
  #last: Leaf = 'all'

  get empty(): boolean {
    return this.#leaves.size === 0
  }

  /** Marks [offset, offset + length); length is at least 1. */
  mark(offset: number, length: number): void {
    const index = Math.floor(offset / LEAF_BYTES)
    const within = offset - index * LEAF_BYTES
    if (within + length > LEAF_BYTES) return this.#markAcross(offset, length)
    const leaf = index === this.#lastIndex ? this.#last : this.#leafAt(index)
    if (leaf === 'all') return
    const last = (within + length - 1) >>> 12
    for (let page = within >>> 12; page <= last; page++) leaf[page >>> 5] = (leaf[page >>> 5] ?? 0) | (1 << (page & 31))
  }

  #markAcross(offset: number, length: number): void {
    const end = offset + length
    for (let at = offset; at < end; ) {
      const next = Math.min(end, (Math.floor(at / LEAF_BYTES) + 1) * LEAF_BYTES)
      this.mark(at, next - at)
      at = next
    }
  }

  #leafAt(index: number): Leaf {
    let leaf = this.#leaves.get(index)
    if (leaf === undefined) {
      leaf = this.#leaves.size < LEAVES_MAX ? new Uint32Array(WORDS_PER_LEAF) : 'all'
      this.#leaves.set(index, leaf)
    }
    this.#lastIndex = index
    this.#last = leaf
    return leaf
  }

  /** All marks, for `unpack`: for each leaf its number, and 1 where it is marked whole, or else 0 and its bits. */
  pack(): Uint32Array {
    const leaves = [...this.#leaves]
    const words = new Uint32Array(leaves.reduce((sum, [, leaf]) => sum + 2 + (leaf === 'all' ? 0 : leaf.length), 0))
    let at = 0
    for (const [index, leaf] of leaves) {
      words.set([index, leaf === 'all' ? 1 : 0], at)
      if (leaf !== 'all') words.set(leaf, at + 2)
      at += 2 + (leaf === 'all' ? 0 : leaf.length)
    }
    return words
  }

  /** Takes marks that were packed, where there are none yet. */
  unpack(words: Uint32Array): void {
    for (let at = 0; at < words.length; ) {
      const isWhole = words[at + 1] === 1
      this.#leaves.set(words[at] ?? 0, isWhole ? 'all' : words.slice(at + 2, at + 2 + WORDS_PER_LEAF))
      at += 2 + (isWhole ? 0 : WORDS_PER_LEAF)
    }
  }

  /** Takes back the marks of the pages that lie wholly within [offset, offset + length). */
  unmark(offset: number, length: number): void {
    const first = Math.ceil(offset / PAGE_BYTES)
    const end = Math.floor((offset + length) / PAGE_BYTES)
    for (let page = first; page < end; page++) {
      const leaf = this.#leaves.get(Math.floor(page / PAGES_PER_LEAF))
      const bit = page % PAGES_PER_LEAF
      if (leaf !== undefined && leaf !== 'all') leaf[bit >>> 5] = (leaf[bit >>> 5] ?? 0) & ~(1 << (bit & 31))
    }
  }

  /** Whether any byte of the range is marked. */
  intersects(offset: number, length: number): boolean {
    const end = Math.ceil((offset + length) / PAGE_BYTES)
    for (let page = Math.floor(offset / PAGE_BYTES); page < end; page++) {
      const leaf = this.#leaves.get(Math.floor(page / PAGES_PER_LEAF))
      if (leaf === undefined) continue
      if (leaf === 'all' || ((leaf[(page % PAGES_PER_LEAF) >>> 5] ?? 0) & (1 << (page & 31))) !== 0) return true
    }
    return false
  }

  /** The marked ranges in order, neighbours joined, none past `size`. */
  *ranges(size: number): IterableIterator<Range> {
    let start = -1
    let end = -1
    for (const [from, to] of this.#runs()) {
      if (from >= size) break
      if (from !== end) {
        if (end > start) yield { start, end: Math.min(end, size) }
        start = from
      }
      end = to
    }
    if (end > start) yield { start, end: Math.min(end, size) }
  }

  *#runs(): IterableIterator<[number, number]> {
    for (const index of [...this.#leaves.keys()].sort((a, b) => a - b)) {
      const base = index * LEAF_BYTES
      const leaf = this.#leaves.get(index)
      if (leaf === 'all' || leaf === undefined) yield [base, base + LEAF_BYTES]
      else yield* pagesOf(leaf, base)
    }
  }
}

function* pagesOf(leaf: Uint32Array, base: number): IterableIterator<[number, number]> {
  for (let word = 0; word < WORDS_PER_LEAF; word++) {
    const bits = leaf[word] ?? 0
    if (bits === 0) continue
    for (let bit = 0; bit < 32; bit++) {
      const at = base + (word * 32 + bit) * PAGE_BYTES
      if ((bits & (1 << bit)) !== 0) yield [at, at + PAGE_BYTES]
    }
  }
}
