// Bytes that the requests of one guest hold in copies, over all its rings. Law: a ring that waits for room has its turn in
// the order of arrival, and none passes it; who holds the last of what was held makes room for the next.

/** One that waits for room. */
export interface Waiter {
  /** Its turn may have come: it asks again soon. */
  resumeSoon(): void
}

export class Copies {
  readonly #bytesMax: number
  readonly #line = new Set<Waiter>()
  #held = 0

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax
  }

  /** Whether this one may take on a request now. Who holds nothing may have one of any length. */
  admits(waiter: Waiter): boolean {
    return this.#hasRoom && (this.#line.size === 0 || this.#first === waiter)
  }

  get #hasRoom(): boolean {
    return this.#held === 0 || this.#held < this.#bytesMax
  }

  get #first(): Waiter | undefined {
    return this.#line.values().next().value
  }

  hold(bytes: number): void {
    this.#held += bytes
  }

  giveBack(bytes: number): void {
    this.#held -= bytes
    this.wake()
  }

  /** It waits behind the others; who waits already keeps its place. */
  wait(waiter: Waiter): void {
    this.#line.add(waiter)
  }

  /** It had its turn, or waits no longer. */
  leave(waiter: Waiter): void {
    this.#line.delete(waiter)
  }

  /** After each turn: the next one is woken where there is room. */
  wake(): void {
    if (this.#line.size > 0 && this.#hasRoom) this.#first?.resumeSoon()
  }
}
