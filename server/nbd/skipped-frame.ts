// A frame that is too large, and is thrown away as it comes. Law: it is refused when it has passed, and the stream stays in step.

const HEADER_COPY_BYTES = 32

export class SkippedFrame {
  #left: number
  /** A copy of its first bytes. */
  readonly header: Uint8Array

  /** `start` is what has come of it, `left` how many bytes have not. */
  constructor(left: number, start: Uint8Array) {
    this.#left = left
    this.header = Uint8Array.prototype.slice.call(start, 0, HEADER_COPY_BYTES)
  }

  get left(): number {
    return this.#left
  }

  /** `length` bytes came; returns how many of them are its own. */
  pass(length: number): number {
    const own = Math.min(this.#left, length)
    this.#left -= own
    return own
  }
}
