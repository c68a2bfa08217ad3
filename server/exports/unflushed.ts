// What was changed since the last good sync. Law: a sync covers what had completed when it began; what was in flight
// then, or at a failure, stays marked.
import type { Change } from './durable-record.js'
import { PageMarks } from './page-marks.js'
import type { Range } from './range-set.js'

export class Unflushed {
  readonly #inFlight = new Set<Change>()
  #marks = new PageMarks()
  /** What the running sync covers. */
  #syncing: PageMarks | undefined

  get empty(): boolean {
    return this.#marks.empty && this.#syncing === undefined
  }

  /** Changes that storage has not answered yet. */
  get inFlight(): Iterable<Change> {
    return this.#inFlight
  }

  mark(offset: number, length: number): void {
    this.#marks.mark(offset, length)
  }

  /** A range that was marked is on its way. */
  begin(offset: number, length: number, epoch: number): Change {
    const change = { start: offset, end: offset + length, epoch }
    this.#inFlight.add(change)
    return change
  }

  finish(change: Change): void {
    this.#inFlight.delete(change)
  }

  /** A change is on stable storage by itself. */
  durable({ start, end }: Range): void {
    this.#marks.unmark(start, end - start)
    this.#syncing?.unmark(start, end - start)
  }

  intersects(offset: number, length: number): boolean {
    return this.#marks.intersects(offset, length) || (this.#syncing?.intersects(offset, length) ?? false)
  }

  ranges(size: number): Iterable<Range> {
    return this.#marks.ranges(size)
  }

  /** The marks for `unpack`, while no sync runs. */
  pack(): Uint32Array {
    return this.#marks.pack()
  }

  unpack(words: Uint32Array): void {
    this.#marks.unpack(words)
  }

  syncBegins(): void {
    this.#syncing = this.#marks
    this.#keepInFlight()
  }

  /** A sync that has not succeeded covers nothing. */
  syncEnds(succeeded: boolean, size: number): void {
    for (const { start, end } of succeeded ? [] : (this.#syncing?.ranges(size) ?? [])) this.mark(start, end - start)
    this.#syncing = undefined
  }

  /** All of it may be lost: it is told once, and what is in flight goes on as unflushed. */
  *give(size: number): IterableIterator<Range> {
    for (const marks of [this.#syncing, this.#marks]) yield* marks?.ranges(size) ?? []
    this.#syncing = this.#syncing && new PageMarks()
    this.#keepInFlight()
  }

  #keepInFlight(): void {
    this.#marks = new PageMarks()
    for (const { start, end } of this.#inFlight) this.mark(start, end - start)
  }
}
