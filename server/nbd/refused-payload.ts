// Payload that nobody wants. Law: it is consumed to its end all the same, and the request answered then.
import type { PayloadSink } from './payload-feed.js'

/** The payload of a WRITE that is refused: thrown away as it comes, and answered when it is over. */
export class RefusedPayload implements PayloadSink {
  readonly busy = false
  readonly bytes: number
  #left: number
  readonly #onEnd: () => void

  constructor(bytes: number, onEnd: () => void) {
    this.bytes = bytes
    this.#left = bytes
    this.#onEnd = onEnd
  }

  came(): void {}

  take(_bytes: Uint8Array, _at: number, length: number): boolean {
    this.#left -= length
    if (this.#left === 0) this.#onEnd()
    return false
  }
}
