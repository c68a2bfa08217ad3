// Keeps what changes the image in order where it overlaps: a WRITE, TRIM or WRITE_ZEROES waits behind every pending
// one that it touches, on any connection. Law: while nothing is pending, asking costs one comparison.

/** A pending change of [start, end). */
export interface Turn {
  readonly start: number
  readonly end: number
  /** Settles when every change that was pending here before has been answered; undefined when there is none. */
  readonly ahead: Promise<unknown> | undefined
}

interface PendingTurn extends Turn {
  readonly done: Promise<void>
  readonly finish: () => void
}

export class WriteOrder {
  readonly #pending = new Set<PendingTurn>()

  /** Changes that have not been answered yet. */
  get pending(): number {
    return this.#pending.size
  }

  /** Whether a change of this range has to wait. */
  overlaps(offset: number, length: number): boolean {
    for (const turn of this.#pending) if (turn.start < offset + length && offset < turn.end) return true
    return false
  }

  /** Joins the queue of this range; the caller awaits `ahead`, does its work and calls `leave`, whatever happened. */
  enter(offset: number, length: number): Turn {
    const end = offset + length
    const before = [...this.#pending].filter((turn) => turn.start < end && offset < turn.end)
    const ahead = before.length === 0 ? undefined : Promise.all(before.map(({ done }) => done))
    let finish = () => {}
    const done = new Promise<void>((resolve) => {
      finish = resolve
    })
    const turn: PendingTurn = { start: offset, end, ahead, done, finish }
    this.#pending.add(turn)
    return turn
  }

  /** Whether another change waits behind this one, whose turn has come. */
  delays({ start, end }: Turn): boolean {
    let overlapping = 0
    for (const turn of this.#pending) if (turn.start < end && start < turn.end) overlapping += 1
    return overlapping > 1
  }

  leave(turn: Turn): void {
    const pending = turn as PendingTurn
    this.#pending.delete(pending)
    pending.finish()
  }
}
