// Keeps what changes the image in order where it overlaps: a WRITE, TRIM or WRITE_ZEROES waits behind every pending
// one that it touches, on any connection. Law: while nothing is pending, asking costs one comparison.
//
// Of each byte only the last one to enter is kept in mind. Whoever comes next waits for that one, which waits for those
// before it: so a thousand changes of the same bytes are a chain, and not each behind every other.
import { RangeMap } from './range-map.js'

/** A pending change of [start, end). */
export interface Turn {
  readonly start: number
  readonly end: number
  /** Settles when every change that was pending here before has been answered; undefined when there is none. */
  readonly ahead: Promise<void> | undefined
  /** Parts of other changes that it waits for itself, and not behind another one. */
  readonly waitsFor: number
}

class PendingTurn implements Turn {
  readonly start: number
  readonly end: number
  ahead: Promise<void> | undefined
  waitsFor = 0
  followers: PendingTurn[] = []
  hasLeft = false
  /** It has left, and so has everything ahead of it. */
  isOver = false
  /** Settles `ahead`. */
  come = () => {}

  constructor(start: number, end: number) {
    this.start = start
    this.end = end
  }

  waitFor(other: PendingTurn): void {
    if (other.isOver) return
    other.followers.push(this)
    this.waitsFor += 1
  }
}

const isPending = (turn: PendingTurn) => !turn.isOver

/** Intervals of turns that are over may stay until they are more than this, and several for each that is pending. */
const STALE_INTERVALS_MAX = 64

export class WriteOrder {
  /** The last to enter, for each byte; some are over. */
  #last = new RangeMap<PendingTurn>()
  #pending = 0

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

  /** Joins the queue of this range; the caller awaits `ahead`, does its work and calls `leave`, whatever happened. */
  enter(offset: number, length: number): Turn {
    const turn = new PendingTurn(offset, offset + length)
    for (const before of this.#last.give(turn.start, turn.end, turn)) turn.waitFor(before)
    if (turn.waitsFor > 0) {
      turn.ahead = new Promise((resolve) => {
        turn.come = resolve
      })
    }
    this.#pending += 1
    return turn
  }

  /** Whether another change waits behind this one, whose turn has come. */
  delays(turn: Turn): boolean {
    const behind = new Set((turn as PendingTurn).followers)
    for (const { hasLeft, followers } of behind) {
      if (!hasLeft) return true
      for (const follower of followers) behind.add(follower)
    }
    return false
  }

  /** Once for each turn. One that leaves before its turn has come still keeps its followers behind what is ahead of it. */
  leave(turn: Turn): void {
    const leaving = turn as PendingTurn
    leaving.hasLeft = true
    this.#pending -= 1
    if (leaving.waitsFor === 0) this.#end(leaving)
    if (this.#pending === 0) this.#last = new RangeMap()
    else if (this.#last.count > 4 * this.#pending + STALE_INTERVALS_MAX) this.#last.keep(isPending)
  }

  #end(turn: PendingTurn): void {
    const ending = [turn]
    for (const each of ending) {
      each.isOver = true
      for (const follower of each.followers) {
        follower.waitsFor -= 1
        if (follower.waitsFor > 0) continue
        follower.come()
        if (follower.hasLeft) ending.push(follower)
      }
      each.followers = []
    }
  }
}
