// The ranges that may be lost, and those of them that were written again but not yet synced. Law: reads may have what
// was rewritten at once; the record drops it only after a successful sync that began later.
import { type Range, RangeSet } from './range-set.js'

export class SuspectRanges {
  /** What reads are refused now. */
  readonly now = new RangeSet()
  #rewritten = new RangeSet()
  /** Rewritten before the running sync began. */
  #covered = new RangeSet()

  /** [start, end) was written whole. */
  rewrite(start: number, end: number): void {
    for (const range of [...this.now.within(start, end)]) this.#rewritten.add(range.start, range.end)
    this.now.remove(start, end)
  }

  /** A sync begins, which covers all that was rewritten so far. */
  syncBegins(): void {
    this.#covered = this.#rewritten
    this.#rewritten = new RangeSet()
  }

  /** That sync has ended; true when there is less to be kept in mind than before. */
  syncEnds(succeeded: boolean): boolean {
    const covered = this.#covered
    this.#covered = new RangeSet()
    if (succeeded) return covered.count > 0
    for (const { start, end } of covered) this.#rewritten.add(start, end)
    return false
  }

  /** What has to outlive the server: a host that goes down now may lose the rewrites too. In order, joined where they touch. */
  *stored(): IterableIterator<Range> {
    const all = [...this.now, ...this.#rewritten, ...this.#covered].sort((a, b) => a.start - b.start)
    for (let index = 0; index < all.length; ) {
      const { start = 0, end = 0 } = all[index] ?? {}
      let to = end
      for (index++; (all[index]?.start ?? Infinity) <= to; index++) to = Math.max(to, all[index]?.end ?? to)
      yield { start, end: to }
    }
  }

  /** For another process, while no sync runs. */
  get known(): { readonly suspect: Range[]; readonly rewritten: Range[] } {
    return { suspect: [...this.now], rewritten: [...this.#rewritten] }
  }

  /** Goes on where another process stopped. */
  goOn(now: Iterable<Range>, rewritten: Iterable<Range>): void {
    for (const { start, end } of now) this.now.add(start, end)
    for (const { start, end } of rewritten) this.#rewritten.add(start, end)
  }

  clear(): void {
    for (const ranges of [this.now, this.#rewritten, this.#covered]) ranges.clear()
  }
}
