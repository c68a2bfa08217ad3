// How much of a large WRITE has landed, and what of that is counted as written. Law: bytes count when all are done, or when
// another process goes on with the rest; it takes the counters over before it takes the request.
import { type Counters, count, WRITTEN_BYTES_AT } from '../observe/counters.js'

export class Landing {
  readonly #counters: Counters
  #bytes = 0
  #counted = 0
  #frozen = false

  constructor(counters: Counters) {
    this.#counters = counters
  }

  get bytes(): number {
    return this.#bytes
  }

  /** A piece is done. */
  add(length: number): void {
    this.#bytes += length
    if (this.#frozen) this.#count(this.#bytes)
  }

  freeze(): void {
    this.#frozen = true
    this.#count(this.#bytes)
  }

  thaw(): void {
    this.#frozen = false
    this.#count(0)
  }

  end(succeeded: boolean): void {
    this.#count(succeeded ? this.#bytes : 0)
  }

  #count(bytes: number): void {
    count(this.#counters, WRITTEN_BYTES_AT, bytes - this.#counted)
    this.#counted = bytes
  }
}
