// Requests that storage has not answered, in order of arrival: hung storage shows as the age of the first.

/** A request on its way through storage. */
export interface Waiting {
  /** ms since the epoch. */
  readonly since: number
  /** The order of arrival among all requests of the export. */
  readonly number: number
  /** The spec's number. */
  readonly command: number
}

/** Requests of all exports of this thread. */
let inThread = 0

/** Whether storage has something of anybody in this thread, whose next step is the event loop's. */
export function storageHas(): boolean {
  return inThread > 0
}

export class WaitingRequests {
  readonly #requests = new Set<Waiting>()
  #arrived = 0

  /** The place in the order of arrival of a request that is not on its way yet. */
  next(): number {
    return this.#arrived++
  }

  enter(command: number): Waiting {
    const waiting = { since: Date.now(), number: this.next(), command }
    this.#requests.add(waiting)
    inThread += 1
    return waiting
  }

  leave(waiting: Waiting): void {
    if (this.#requests.delete(waiting)) inThread -= 1
  }

  /** The one that has waited longest. */
  get oldest(): Waiting | undefined {
    const [first] = this.#requests
    return first
  }
}
