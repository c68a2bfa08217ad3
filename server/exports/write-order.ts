// Keeps what changes the image in order where it overlaps: a WRITE, TRIM or WRITE_ZEROES waits behind every pending
// one that it touches, on any connection. Law: while nothing is pending, asking costs one comparison.
//
// Of each byte only the last one to enter is kept in mind. Whoever comes next waits for that one, which waits for those
// before it: so a thousand changes of the same bytes are a chain, and not each behind every other. One that leaves before
// its turn has come gives its bytes back to those it took them from: or a client that comes and goes would lengthen the chain
// for ever.
import { DONE, MOVED, type Outcome, SHUT_DOWN } from '../../backends/index.js'
import { type Owned, RangeMap, within } from './range-map.js'

/** A pending change of [start, end). */
export interface Turn {
  readonly start: number
  readonly end: number
  /** Changes that it waits for itself, and not behind another one; none when its turn has come. */
  readonly waitsFor: number
}

interface Waiter {
  readonly wake: (why: Outcome) => void
  /** Whether anybody still waits for its answer. */
  readonly wanted: () => boolean
}

class PendingTurn implements Turn {
  readonly start: number
  readonly end: number
  readonly before = new Set<PendingTurn>()
  readonly followers = new Set<PendingTurn>()
  /** Bytes that those had whom it waits for. */
  taken: Owned<PendingTurn>[] = []
  isOver = false

  constructor(start: number, end: number) {
    this.start = start
    this.end = end
  }

  get waitsFor(): number {
    return this.before.size
  }

  /** These bytes are its own behind their owners. */
  takeFrom(intervals: readonly Owned<PendingTurn>[]): void {
    for (const interval of intervals) {
      if (interval.owner.isOver) continue
      interval.owner.followers.add(this)
      this.before.add(interval.owner)
      this.taken.push(interval)
    }
  }

  /** That one is ahead no more: what it had taken itself is what was taken of it. */
  passOver(gone: PendingTurn): void {
    const [its, others] = [this.taken.filter(isOf(gone)), this.taken.filter(({ owner }) => owner !== gone)]
    this.before.delete(gone)
    this.taken = others
    for (const { start, end } of its) this.takeFrom(within(gone.taken, start, end))
  }
}

const isOf =
  (turn: PendingTurn) =>
  ({ owner }: Owned<PendingTurn>) =>
    owner === turn
const isPending = (turn: PendingTurn) => !turn.isOver

/** Intervals of turns that are over may stay until they are more than this, and several for each that is pending. */
const STALE_INTERVALS_MAX = 64

export class WriteOrder {
  /** The last to enter, for each byte; some are over. */
  #last = new RangeMap<PendingTurn>()
  #pending = 0
  readonly #waiting = new Map<Turn, Waiter>()
  #frozen = false
  /** Intervals that were left when those of turns that are over were taken out. */
  #swept = 0

  /** Changes that have not been answered yet. */
  get pending(): number {
    return this.#pending
  }

  /** Intervals that are kept in mind. */
  get kept(): number {
    return this.#last.count
  }

  /** Whether a change of this range has to wait. */
  overlaps(offset: number, length: number): boolean {
    return this.#last.intersects(offset, offset + length, isPending)
  }

  /** Joins the queue of this range; the caller waits, where the turn waits for others, does its work and calls `leave`, whatever happened. */
  enter(offset: number, length: number): Turn {
    const turn = new PendingTurn(offset, offset + length)
    turn.takeFrom(this.#last.give(turn.start, turn.end, turn))
    this.#pending += 1
    return turn
  }

  /**
   * Resolves with DONE when every change that was pending there before has been answered; with MOVED when the export is
   * frozen first, with SHUT_DOWN when it is not wanted any more or has left.
   */
  wait(turn: Turn, wanted: () => boolean): Promise<Outcome> {
    if (turn.waitsFor === 0) return Promise.resolve(DONE)
    if (this.#frozen) return Promise.resolve(MOVED)
    return new Promise((resolve) => this.#waiting.set(turn, { wake: resolve, wanted }))
  }

  #wake(turn: Turn, why: Outcome): void {
    this.#waiting.get(turn)?.wake(why)
    this.#waiting.delete(turn)
  }

  /** Ends all waits with MOVED, those to come included, until it is told otherwise. */
  freeze(frozen: boolean): void {
    this.#frozen = frozen
    if (frozen) for (const turn of [...this.#waiting.keys()]) this.#wake(turn, MOVED)
  }

  /** Ends the wait of changes whose client has gone. */
  dropUnwanted(): void {
    for (const [turn, { wanted }] of [...this.#waiting]) if (!wanted()) this.#wake(turn, SHUT_DOWN)
  }

  /** Whether another change waits behind this one. */
  delays(turn: Turn): boolean {
    return (turn as PendingTurn).followers.size > 0
  }

  /** Once for each turn. One that leaves before its turn has come still keeps its followers behind what is ahead of it. */
  leave(turn: Turn): void {
    const leaving = turn as PendingTurn
    this.#pending -= 1
    this.#wake(leaving, SHUT_DOWN)
    if (leaving.waitsFor > 0) this.#giveBack(leaving)
    leaving.isOver = true
    for (const follower of leaving.followers) {
      follower.passOver(leaving)
      if (follower.waitsFor === 0) this.#wake(follower, DONE)
    }
    leaving.followers.clear()
    leaving.taken = []
    this.#sweep()
  }

  #giveBack(leaving: PendingTurn): void {
    for (const before of leaving.before) before.followers.delete(leaving)
    for (const { start, end } of this.#last.take(leaving.start, leaving.end, leaving)) {
      for (const its of within(leaving.taken, start, end)) this.#last.add(its.start, its.end, its.owner)
    }
  }

  #sweep(): void {
    if (this.#pending === 0) {
      this.#last = new RangeMap()
      this.#swept = 0
    }
    const stale = this.#last.count - 2 * this.#swept
    if (stale <= 4 * this.#pending + STALE_INTERVALS_MAX) return
    this.#last.keep(isPending)
    this.#swept = this.#last.count
  }
}
